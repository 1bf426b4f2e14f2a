"""The implementations behind The Executable Transformer: one module a chapter."""
