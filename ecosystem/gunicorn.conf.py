"""gunicorn for one worker: `gunicorn -c ecosystem/gunicorn.conf.py`, once for each port.

    REDIS_URL=redis://127.0.0.1 VISAVIS_PORT=3001 .venv/bin/python -m gunicorn -c ecosystem/gunicorn.conf.py

The environment is all there is to set (docs/settings.md). A process of its own for each port, because a guest who polls
must reach the same worker each time: nginx sees to that by port, while gunicorn would give the connections of one port
to whichever of its workers is quicker. Workers that share guests need one REDIS_URL. Without it a worker is a whole
service by itself: its private Valkey, coturn and recorder start under gunicorn as they do under `visavis serve`.

What gunicorn adds to `visavis serve`: it takes the port before anything else starts, so that connections wait instead
of failing, starts another worker when one dies or hangs, and ends one that will not stop.
"""

import logging
import os
import sys

from visavis import logs
from visavis.doors.front import BACKLOG
from visavis.settings import Settings, SettingsError

try:
    _settings = Settings.from_environment(os.environ)
    if _settings.port == 0:
        raise SettingsError("VISAVIS_PORT: gunicorn needs a port by number; 0 is for `visavis serve`")
except SettingsError as error:
    print(f"visavis: {error}", file=sys.stderr)
    sys.exit(2)
logs.configure(_settings.log_level)

wsgi_app = "visavis.app:application"
worker_class = "visavis.gunicorn_worker.Worker"
workers = 1
bind = f"[{_settings.host}]:{_settings.port}" if ":" in _settings.host else f"{_settings.host}:{_settings.port}"
backlog = BACKLOG

# After SIGTERM a worker asks its guests to move, hands over and goes: in about five seconds, and before the ten are
# over that whoever started it gives it.
graceful_timeout = 9
# Without a sign of life for this long, a worker hangs and another is started. It gives one each second, but none while
# it stops, and a machine that slept or stood still is no reason to end everybody's connections.
timeout = 30
# Where there is one, a folder in memory: on a disk that is busy, a sign of life can take long enough to look like none.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108  # see above

# It would lie in the home folder, the same for every instance on the machine; who needs to be told uses signals.
control_socket_disable = True

# One format for everything, by way of the root logger; nothing about single requests.
accesslog = None
errorlog = None
loglevel = _settings.log_level


def on_starting(server: object) -> None:
    """Called before the port is taken: what gunicorn has to say goes where everything goes."""
    logging.getLogger("gunicorn.error").propagate = True
