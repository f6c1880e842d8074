"""Puts a server together from its settings and runs it until a signal comes."""

from __future__ import annotations

import logging
import sys
import threading

from ..errors import EftlocalError
from .app import create_app
from .browser import open_page
from .host import Host
from .logs import set_up_logs
from .metrics import Metrics
from .process import serve
from .service import Service
from .settings import Settings
from .sockets import Listener, listen
from .states import LoadFailed

logger = logging.getLogger("eftlocal.server")


class _Models:
    """The life of a server of models: the first one is loaded before it is ready."""

    def __init__(self, host: Host, settings: Settings, listener: Listener) -> None:
        self._host = host
        self._settings = settings
        self._url = listener.url
        self._page = listener.page

    async def start(self) -> None:
        names = self._host.names()
        logger.info("listening at %s, loading %s", self._url, names[0])
        if self._settings.open_page and self._page is not None:
            # Its keys are asked for by the page: an address ends up in histories.
            open_page(self._page)
        try:
            await self._host.worker(wait=True)
        except LoadFailed as error:
            # Whoever started the server may see paths.
            cause = error.__cause__
            raise cause if isinstance(cause, EftlocalError) else error from None
        line = f"eftlocal serves {', '.join(names)} at {self._url}"
        if self._page is not None:
            line += f" (the page: {self._page}, the API: {self._page}docs)"
        if self._settings.log_json:
            logger.info("%s", line, extra={"fields": {"url": self._url, "models": names}})
        else:
            print(line, file=sys.stderr, flush=True)

    async def close(self, grace: float) -> None:
        await self._host.close(grace)


def run(settings: Settings) -> None:
    """Serve models until a signal comes; blocks.

    Raises:
        CannotListen: where the address cannot be had.
        EftlocalError: where the first model cannot be loaded.
    """
    set_up_logs(settings.log_level, settings.log_json, settings.verbose)
    metrics = Metrics()
    host = Host(settings, metrics.on_job_end)
    service = Service(settings, host, metrics)
    draining = threading.Event()
    app = create_app(service, is_draining=draining.is_set)
    listener = listen(settings)
    serve(app, _Models(host, settings, listener), listener, settings, draining)
