"""What backends that are given ONNX share: the graph writer, the encoder, the token embedding. Itself no backend."""
