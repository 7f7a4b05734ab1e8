"""What an exception says about the machine: no memory left, or no disk."""

import errno
from collections.abc import Iterator

_FAILURE_OOM_WORDS = (
    "out of memory",  # CUDA, HIP, XPU, MPS, with and without a full stop
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",  # what cuDNN says of a workspace that did not fit
    "can't allocate memory",  # torch's allocator on the CPU
    "PT_DEVMEM Allocation failed",  # HPU
)
# The disk or a quota is full, or the file system takes no file of that size.
_FAILURE_DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# safetensors and torch write by themselves, and tell only in words.
_FAILURE_DISK_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "File too large",
    "PytorchStreamWriter failed writing",
    "basic_ios::clear: iostream error",
)


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception, then what it was raised from or while handling, each once."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an accelerator, or torch on the CPU, ran out of memory.

    Accelerate's own test knows some of these words, only those with a full stop, and looks at one
    exception alone.

    >>> is_out_of_memory(RuntimeError("CUDA error: out of memory"))
    True
    >>> is_out_of_memory(ValueError("a row says: out of memory"))
    False
    """
    return any(_failure_is_oom(one) for one in error_chain(error))


def _failure_is_oom(error: BaseException) -> bool:
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in _FAILURE_OOM_WORDS
    )


def is_disk_full(error: BaseException) -> bool:
    """Tell whether a file could not be written since the disk or a quota has no room for it.

    >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device"))
    True
    >>> is_disk_full(OSError(errno.ENOENT, "No such file or directory"))
    False
    """
    return any(
        getattr(one, "errno", None) in _FAILURE_DISK_ERRORS
        or any(words in str(one) for words in _FAILURE_DISK_WORDS)
        for one in error_chain(error)
    )
