"""Ollama's API over fused models, for the many clients that speak only that."""

from __future__ import annotations

from fastapi import APIRouter

from . import catalogue, chat, generate, refused
from .routing import ERROR_ANSWERS, OllamaRoute

router = APIRouter(route_class=OllamaRoute, tags=["Ollama"], responses=ERROR_ANSWERS)
for part in (catalogue, chat, generate, refused):
    router.include_router(part.router)

__all__ = ["router"]
