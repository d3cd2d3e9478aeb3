"""The model card of a foreign model, where its maker gives none: what the contract and the proof say."""

from schemas.contract import Contract
from schemas.evidence import ForeignEvidence
from schemas.manifest import Parity, Source
from trainer.foreign_evidence import evidence_in_words
from trainer.foreign_golden import Golden
from trainer.signature import Signature


def model_card(
    name: str,
    signature: Signature,
    contract: Contract,
    parity: Parity | None,
    sources: tuple[Source, ...],
    golden: Golden,
    evidence: ForeignEvidence | None,
) -> bytes:
    """The card as Markdown in UTF-8. It says what is known, and what nobody said."""
    producer = f"{signature.producer} {signature.producer_version}".strip()
    if parity is None:
        proof = (
            "**Not proven.** Nobody said what the training pipeline predicts: the golden vectors are the "
            "graph's own answers."
        )
    else:
        proof = (
            f"The graph gives what the training pipeline predicted for all {parity.rows:,} rows: the "
            f"largest difference is {parity.max_difference:.1e} of 1 + |prediction| (limit "
            f"{parity.limit:g}; onnxruntime {parity.onnxruntime}, {parity.numeric_class})."
        )
    reads = [f"| {f.name} | {f.type} | {f.unit} | {f.description} |" for f in contract.fields]
    gives = [f"| {o.name} | {o.type} | {o.unit} | {o.description} |" for o in contract.outputs]
    trained = [f"- {s.name}, {s.licence or 'no licence stated'}, {s.digest}" for s in sources]
    lines = [
        f"# {name}",
        "",
        f"An ONNX graph written by {producer or 'a tool that does not name itself'}.",
        "",
        "## What it reads and gives",
        "",
        "| name | type | unit | description |",
        "|---|---|---|---|",
        *reads,
        "| **gives** | | | |",
        *gives,
        "",
        "## Is the graph the trained model?",
        "",
        proof,
        "",
        f"{len(golden.vectors):,} golden vectors. Not shown by any: "
        f"{', '.join(golden.unexercised) or 'nothing that the contract allows'}.",
        "",
        "## How good is it?",
        "",
        *evidence_in_words(evidence),
        "",
        "## Trained on",
        "",
        *(trained or ["Not stated."]),
    ]
    return ("\n".join(lines) + "\n").encode()
