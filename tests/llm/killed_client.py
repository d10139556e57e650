"""A process that the test kills: asks a server for rows, through a cache, until it is done.

`python -m tests.llm.killed_client URL CACHE ROWS IN_FLIGHT`
"""

import sys

from longctx.llm.cache import Cache
from longctx.llm.cache_shards import ShardCache
from longctx.llm.cache_sqlite import SQLiteCache
from longctx.llm.client import Client
from longctx.llm.openai import OpenAICompat, OpenAISettings
from longctx.llm.settings import ClientSettings
from tests.llm.virtual import request


def cache_at(place: str) -> Cache:
    return SQLiteCache(place) if place.endswith(".sqlite") else ShardCache(place)


def client(url: str, place: str, in_flight: int) -> Client:
    backend = OpenAICompat(OpenAISettings(base_url=url, model="scripted"), in_flight)
    return Client(backend, cache_at(place), ClientSettings(in_flight=in_flight))


def main() -> None:
    url, place, rows, in_flight = sys.argv[1:]
    with client(url, place, int(in_flight)) as asked:
        results = asked.generate([request(str(i)) for i in range(int(rows))])
    assert all(r.error is None for r in results)


if __name__ == "__main__":
    main()
