"""What backends on an NVIDIA GPU share: CUDA's runtime library, memory, KV caches that stay in place. No backend."""
