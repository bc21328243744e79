"""whisper_factory: a declarative engine factory for OpenAI's Whisper."""

__version__ = "0.1.0"
