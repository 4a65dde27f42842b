"""Fills a cache that the next stage will read, beside the stage that trains, at low priority."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import torch

from pipeline.cache.cached_stream import CachedStream
from pipeline.cache.sample_table import SampleCache
from pipeline.decoder import Decoder, Request
from pipeline.error import LoaderError
from pipeline.source import SampleSource

BATCH_SIZE = 64
_NICE = 19
_LOOK_EVERY_S = 0.2

_logger = logging.getLogger(__name__)


class Filler:
    """Decodes what a cache does not hold yet, until it holds everything or is told to stop.

    Args:
        cache: What to fill.
        decoder: Decodes, in few threads.
        source: The samples.
        exact: See `Decoder.stream`.
        device: Where the cache's batches go.
        may_begin: Asked now and then until it says yes: the stage that trains comes first.
    """

    def __init__(
        self,
        cache: SampleCache,
        decoder: Decoder,
        source: SampleSource,
        *,
        exact: bool,
        device: torch.device,
        may_begin: Callable[[], bool],
    ) -> None:
        self._cache, self._may_begin = cache, may_begin
        self._stream = CachedStream(
            cache, decoder, source, exact=exact, device=device, threads=1, ahead=1
        )
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="maskdepth-fill", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; what is filled stays."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        # of this thread alone, and of those that the decoder starts from it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while not self._may_begin():
            if self._stopped.wait(_LOOK_EVERY_S):
                return
        try:
            with closing(self._stream.batches(self._requests())) as batches:
                for _ in batches:
                    pass
        except LoaderError as error:
            _logger.warning("the next stage's cache is not filled ahead: %s", error)

    def _requests(self) -> Iterator[Request]:
        missing = self._cache.not_held
        for begin in range(0, len(missing), BATCH_SIZE):
            if self._stopped.is_set():
                return
            batch = missing[begin : begin + BATCH_SIZE]
            yield Request(numbers=batch, num_counted=len(batch))
