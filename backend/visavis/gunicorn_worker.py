"""The worker that gunicorn starts: aiohttp's on uvloop, which listens as one under `visavis serve` does."""

import socket

from aiohttp import GunicornUVLoopWebWorker

from visavis.doors.front import BACKLOG, listeners


class Worker(GunicornUVLoopWebWorker):
    """Takes in several connections in a turn of the loop, and lets as many wait as gunicorn was told to."""

    sockets: list[socket.socket]
    _serving = False

    def init_process(self) -> None:
        self.sockets = [one for sock in self.sockets for one in listeners(sock)]
        super().init_process()

    def notify(self) -> None:
        """A sign of life, once a second from when it serves on."""
        super().notify()
        if not self._serving:
            self._serving = True
            for sock in self.sockets:
                # aiohttp lets 128 wait, and its worker cannot be told otherwise.
                sock.listen(BACKLOG)
