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
  revoked, or was not what the log routed to at the answer's revision, as champion or as candidate.
- **wrong_variant** (with a control log): answers at a revision whose weight lies between 0 and 10,000
  that are not the variant's to which the request's key, or without one its request id, was routed.
  A rejection with version 0 was rejected before routing and has no variant. Where neither key nor id
  is known (a rejection without a key whose bytes were not kept), it counts as `variant_unchecked`,
  which is no fault.
- **unknown**: answers that cannot be read or that name no request.

What was seen of each split (a rollout at a weight) stands in ``shares``: answers and distinct keys by
variant, for comparison with the weight. Rules and bounds in ``routes``.

The topics may still be written to. Requests are read before answers: only those are *due*; one that
came later counts when it has an answer and is passed over when it has none. The control log is read
first, so that answers can be judged as they come, and again last, so that it holds every revision that
an answer names; it must begin then as it began first. What retention has removed is not judged:
answers to requests below the first one held are passed over, but a request whose answer was removed
looks lost; run the check before the answers expire.

A request costs about 35 bytes of memory. The keys of the shares take at most 20 MB beside that, and
answers ahead of the control log 30 MB.
"""

from modelwire.checker.report import Finding, Kind, Record, Report, Share, Tally
from modelwire.checker.stream import StreamCheck, check
from modelwire.checker.topics import StreamUnreadable, Topics, check_topics

__all__ = [
    "Finding",
    "Kind",
    "Record",
    "Report",
    "Share",
    "StreamCheck",
    "StreamUnreadable",
    "Tally",
    "Topics",
    "check",
    "check_topics",
]
