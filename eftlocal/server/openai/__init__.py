"""The routes of OpenAI's API, and those that evaluation tools and llama.cpp's clients add to it."""
