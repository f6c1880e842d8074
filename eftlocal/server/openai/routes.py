"""All routes of this package, for the application."""

from __future__ import annotations

from . import catalogue, chat, completions, tokens

routers = (chat.router, completions.router, catalogue.router, tokens.router)
