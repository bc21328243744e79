"""The Whisper model itself: dimensions, checkpoint readers, log-mel, tokenizer, decoding."""
