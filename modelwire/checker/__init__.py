"""Decides whether a stream of requests was answered as promised, from the topics alone.

This is the witness, so it shares no code with those it judges: it imports no other part of
modelwire, knows the wire format from its documentation, and folds the control log by rules of its
own. ``stream`` is the core and does no I/O: `check` feeds it from iterables, `check_topics` from a
broker. Its command is ``modelwire.verify_stream``. What is counted:

- **lost**: requests without an answer; **doubled**: requests with more than one, over results and
  rejections together.
- **revision_regressions**: answers whose revision is below that of an earlier answer of the same
  request partition. Earlier is meant twice: by the offset of the request, and by the place in the
  log where the answers of that partition stand together. An answer is counted once.
- **wrong_echo**: forecasts whose source timestamp, key, request_id or inputs (byte for byte) are not
  the request's; rejections whose source timestamp, key or value are not, unless a header says that the
  value is an envelope.
- **wrong_partition**: forecasts on another partition number than their request's, where both topics
  have the same number of partitions.
- **wrong_version** (with a control log): answers whose version was not released with that digest, was
  revoked, or was not what the log routed to at the answer's revision. At a weight between 0 and
  10,000 both versions are right and the share is not checked; `share_unchecked` says so.
- **unknown**: answers that cannot be read or that name no request.

The topics may still be written to. Requests are read first, so only those are *due*; a request that
came later counts when it has an answer and is passed over when it has none. The control log is read
last, so it holds every revision that an answer names. What retention has removed is not judged:
answers to requests below the first one held are passed over, but a request whose answer was removed
looks lost; run the check before the answers expire.

A request costs about 35 bytes of memory.
"""

from modelwire.checker.report import Finding, Kind, Record, Report
from modelwire.checker.stream import StreamCheck, check
from modelwire.checker.topics import StreamUnreadable, Topics, check_topics

__all__ = [
    "Finding",
    "Kind",
    "Record",
    "Report",
    "StreamCheck",
    "StreamUnreadable",
    "Topics",
    "check",
    "check_topics",
]
