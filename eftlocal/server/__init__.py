"""The HTTP server: OpenAI's and Ollama's API over fused models; imported by `eftlocal serve`."""
