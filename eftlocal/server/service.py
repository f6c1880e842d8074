"""What every route needs: settings, models, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

if TYPE_CHECKING:
    from .host import Host
    from .metrics import Metrics
    from .settings import Settings


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of a running server.

    Attributes:
        settings: what `eftlocal serve` was told.
        host: the model entries that it serves, and their workers.
        metrics: counters and histograms.
    """

    settings: Settings
    host: Host
    metrics: Metrics


def service_of(request: Request) -> Service:
    """The service of the application that a request reached."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceDep = Annotated[Service, Depends(service_of)]
"""Parameter type of a route that needs the service."""
