"""What passes between the start of a container and its first answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ColdStart:
    """The phases of a start, which follow each other; all figures are assumed.

    With the defaults 28 GB take 400 s to download and 479 s in all: longer than a liveness probe allows that
    starts after 300 s and fails three times in 30 s.
    """

    process_seconds: float = 20.0
    """Python, CUDA and the model's configuration."""
    download_bytes_per_second: float = 70e6
    """Of the weights: whether a volume keeps them over a restart is not documented."""
    load_bytes_per_second: float = 1.5e9
    """From disk to GPU."""
    warmup_seconds: float = 40.0
    """torch.compile, profiling and CUDA graphs."""

    def phases(self, size: float) -> dict[str, float]:
        """Seconds of each phase in its turn, for weights of `size` bytes."""
        return {
            "process": self.process_seconds,
            "download": size / self.download_bytes_per_second,
            "load": size / self.load_bytes_per_second,
            "warm-up": self.warmup_seconds,
        }

    def seconds(self, size: float) -> float:
        """Seconds from the container's start until it listens, for weights of `size` bytes."""
        return sum(self.phases(size).values())
