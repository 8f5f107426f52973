"""Each row: where its chats go and with what, a quirk of its answers, and an error of its own.

Members and words are as the providers' pages, their SDKs, recorded traffic and reports of their
users have them.
"""

from __future__ import annotations

from typing import Final

from tests.providers.clouds import CLOUDS
from tests.providers.hosts import HOSTS
from tests.providers.said import Row
from tests.providers.servers import SERVERS
from tests.providers.translated import TRANSLATED

ROWS: Final[dict[str, Row]] = {**CLOUDS, **HOSTS, **SERVERS, **TRANSLATED}
