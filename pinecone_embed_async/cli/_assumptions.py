"""What the client and the emulator assume about the service: requests, and what their answers must be. Pure.

Sources: the reference of the inference API (2025-04 to 2026-07), the service's documentation, and, where these say nothing,
what the emulator does.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from pinecone_embed_async import ModelInfo, ResponseError
from pinecone_embed_async._models import DEFAULT_MAX_SEQUENCE_LENGTH, KNOWN_MODELS, KnownModel
from pinecone_embed_async._options import DEFAULT_API_VERSION
from pinecone_embed_async._wire import decode_model, decode_models
from pinecone_embed_async.cli._probes import UNREADABLE, Answer, Assumption, Probe, Reply

_SPECIAL_TOKENS = 2


# The requests.


def _embed(model: str, texts: Sequence[str], *, changed: Mapping[str, Any] | None = None, **parameters: Any) -> Probe:
    """A request to `/embed` with these parameters; `changed` overrides fields of the probe."""
    body = {"model": model, "inputs": [{"text": text} for text in texts], "parameters": parameters}
    known = KNOWN_MODELS.get(model)
    length = DEFAULT_MAX_SEQUENCE_LENGTH if known is None else known.max_sequence_length
    tokens = sum(min(len(text.encode()) + _SPECIAL_TOKENS, length) for text in texts)
    fields: dict[str, Any] = {"body": json.dumps(body).encode(), "most_tokens": tokens, **(changed or {})}
    return Probe(path="embed", **fields)


def _model(name: str, **fields: Any) -> Probe:
    return Probe(path=f"models/{name}", **fields)


E5, LLAMA, SPARSE = "multilingual-e5-large", "llama-text-embed-v2", "pinecone-sparse-english-v0"
RERANKER, UNKNOWN = "bge-reranker-v2-m3", "no-such-model"
TEXTS = ("the quick brown fox", "a lazy dog", "the quick brown fox")
TOO_LONG = "word " * 600
TOO_MANY = 97
FREE = {"most_tokens": 0}

DENSE = _embed(E5, TEXTS, input_type="passage")
SPARSE_WITH_TOKENS = _embed(SPARSE, TEXTS[:2], input_type="passage", return_tokens=True)
WITHOUT_KEY = {**FREE, "key": "none"}
WITH_WRONG_KEY = {**FREE, "key": "wrong"}


# The judgements.


class _DocumentedItem(msgspec.Struct):
    values: list[float]
    vector_type: str


class _DocumentedUsage(msgspec.Struct):
    total_tokens: int


class _DocumentedAnswer(msgspec.Struct):
    """Schema `EmbeddingsList` for dense vectors, with every field that it requires."""

    model: str
    vector_type: str
    data: list[_DocumentedItem]
    usage: _DocumentedUsage


def _refused(claim: str, probe: Probe, status: int, code: str, message: str = "", *, naming: str = "") -> Assumption:
    """Assume that the service refuses a request; its message must equal `message`, if given, and contain `naming`."""

    def judge(reply: Reply) -> tuple[bool, str]:
        error = reply.error
        if error is None or (reply.status, error.code) != (status, code):
            return False, str(reply)
        return message in {"", error.message} and naming in error.message, str(reply)

    said = f": {message}" if message else f", naming {naming}" if naming else ""
    return Assumption(claim, f"{status} {code}{said}", probe, judge)


def _answered(claim: str, expected: str, probe: Probe, judge: Callable[[Answer], tuple[bool, str]]) -> Assumption:
    """Assume something about an answer with embeddings."""

    def judge_reply(reply: Reply) -> tuple[bool, str]:
        if reply.status != 200:
            return False, str(reply)
        try:
            return judge(msgspec.json.decode(reply.body, type=Answer))
        except UNREADABLE as error:
            return False, f"the answer does not match the reference: {error}"

    return Assumption(claim, expected, probe, judge_reply)


def _described(
    claim: str, expected: str, probe: Probe, show: Callable[[list[ModelInfo]], str], *, is_list: bool = False
) -> Assumption:
    """Assume that a description of models, shown as text, equals the expected text."""

    def judge(reply: Reply) -> tuple[bool, str]:
        if reply.status != 200:
            return False, str(reply)
        try:
            seen = show(decode_models(reply.body) if is_list else [decode_model(reply.body)])
        except ResponseError as error:
            return False, str(error)
        return seen == expected, seen

    return Assumption(claim, expected, probe, judge)


def _header(claim: str, expected: str, name: str, holds: Callable[[str], bool]) -> Assumption:
    """Assume something about a header of the answer with dense vectors."""

    def judge(reply: Reply) -> tuple[bool, str]:
        value = reply.headers.get(name, "")
        return reply.status == 200 and holds(value), value or "none" if reply.status == 200 else str(reply)

    return Assumption(claim, expected, DENSE, judge)


def _has_documented_fields(reply: Reply) -> tuple[bool, str]:
    if reply.status != 200:
        return False, str(reply)
    try:
        answer = msgspec.json.decode(reply.body, type=_DocumentedAnswer)
    except UNREADABLE as error:
        return False, str(error)
    kinds = {answer.vector_type, *(item.vector_type for item in answer.data)}
    return (answer.model, kinds) == (E5, {"dense"}), f"{answer.model}, {', '.join(sorted(kinds))}"


def _is_in_order(answer: Answer) -> tuple[bool, str]:
    rows = [item.values for item in answer.data]
    if len(rows) != 3:
        return False, f"{len(rows)} embeddings"
    same, other = rows[0] == rows[2], rows[0] == rows[1]
    return (
        same and not other,
        f"3: {'equal' if same else 'different'} for the equal texts, {'equal' if other else 'different'} for the other",
    )


def _has_numbers(count: int) -> Callable[[Answer], tuple[bool, str]]:
    def judge(answer: Answer) -> tuple[bool, str]:
        counts = sorted({len(item.values) for item in answer.data})
        return counts == [count], ", ".join(map(str, counts)) or "no embeddings"

    return judge


def _is_half_precision(answer: Answer) -> tuple[bool, str]:
    values = np.array([value for item in answer.data for value in item.values])
    with np.errstate(over="ignore"):
        others = values[values.astype(np.float16) != values]
    if not values.size:
        return False, "no numbers"
    return not others.size, f"{others.size:,} of {values.size:,} are not, such as {others[0]}" if others.size else "all are"


def _bills_between(least: int, most: int) -> Callable[[Answer], tuple[bool, str]]:
    return lambda answer: (least <= answer.usage.total_tokens <= most, str(answer.usage.total_tokens))


def _is_sparse(answer: Answer) -> tuple[bool, str]:
    counts = [(len(item.sparse_indices), len(item.sparse_values), len(item.sparse_tokens or ())) for item in answer.data]
    indices = [index for item in answer.data for index in item.sparse_indices]
    is_such = answer.vector_type == "sparse" and all(item.vector_type == "sparse" for item in answer.data)
    is_such = is_such and len(counts) == 2 and all(len(set(each)) == 1 and each[0] for each in counts)
    is_such = is_such and all(0 <= index < 2**32 for index in indices)
    shown = "; ".join("{} indices, {} values, {} tokens".format(*each) for each in counts)
    return is_such, f"{answer.vector_type}: {shown or 'no embeddings'}; indices to {max(indices, default=0)}"


def _has_no_tokens(answer: Answer) -> tuple[bool, str]:
    tokens = [item.sparse_tokens for item in answer.data if item.sparse_tokens is not None]
    return bool(answer.data) and not tokens, "tokens" if tokens else "none" if answer.data else "no embeddings"


def _limits_of(kind: str | None, dimension: int | None, tokens: int | None, inputs: int | None) -> str:
    numbers = f", {dimension} numbers" if dimension else ""
    return f"{kind}{numbers}, {tokens} tokens an input, {inputs} inputs a request"


def _show_name(models: list[ModelInfo]) -> str:
    [model] = models
    return model.model


def _show_limits(models: list[ModelInfo]) -> str:
    [model] = models
    return _limits_of(model.vector_type, model.default_dimension, model.max_sequence_length, model.max_batch_size)


def _parameters_of(required: Sequence[str], choices: Mapping[str, Sequence[object]]) -> str:
    shown = (f"{name} {'|'.join(sorted(map(str, values)))}" for name, values in sorted(choices.items()))
    return f"{'; '.join(shown)}; required: {', '.join(sorted(required)) or 'none'}"


def _show_parameters(names: Sequence[str]) -> Callable[[list[ModelInfo]], str]:
    """Show the choices the service describes for these parameters, and which parameters it requires."""

    def show(models: list[ModelInfo]) -> str:
        [model] = models
        described = {one.parameter: one.allowed_values or () for one in model.supported_parameters}
        required = [one.parameter for one in model.supported_parameters if one.required]
        return _parameters_of(required, {name: described[name] for name in names if name in described})

    return show


def _show_range(models: list[ModelInfo]) -> str:
    [model] = models
    found = [one for one in model.supported_parameters if one.parameter == "max_tokens_per_sequence"]
    return f"at most {found[0].max:g}, {found[0].default} by default" if found and found[0].max else "no such range"


def _show_missing(models: list[ModelInfo]) -> str:
    missing = sorted(KNOWN_MODELS.keys() - {model.model for model in models})
    return f"all but {', '.join(missing)}" if missing else "all of them"


def _show_kinds(models: list[ModelInfo]) -> str:
    return ", ".join(sorted({f"{model.type}/{model.vector_type}" for model in models})) or "none"


def _of_known_model(known: KnownModel) -> list[Assumption]:
    """Assume that the service describes a model as it is known here."""
    # The service describes a choice between true and false as a boolean parameter without choices.
    choices = {name: values for name, values in known.choices.items() if True not in values}
    limits = _limits_of(known.vector_type, known.dimension, known.max_sequence_length, known.max_batch_size)
    probe = _model(known.name)
    return [
        _described(f"{known.name} has these limits", limits, probe, _show_limits),
        _described(
            f"{known.name} has these parameters",
            _parameters_of(known.required, choices),
            probe,
            _show_parameters(list(choices)),
        ),
    ]


def _of_versions() -> list[Assumption]:
    """Assume that published versions are accepted and others refused."""
    taken = [
        _described(f"API version {version} is accepted", E5, _model(E5, api_version=version), _show_name)
        for version in ("2025-04", "2025-10", "2026-04", DEFAULT_API_VERSION)
    ]
    refused = [
        _refused(f"API version {version!r} is refused", _model(E5, api_version=version), 400, "INVALID_ARGUMENT")
        for version in ("2019-01", "not-a-version")
    ]
    # The documentation says that a request without a version gets the oldest one. But the reference requires a version, and
    # it takes precedence here.
    missing = _refused("a request without a version is refused", _model(E5, api_version=None), 400, "INVALID_ARGUMENT")
    return [*taken, *refused, missing]


ASSUMPTIONS: tuple[Assumption, ...] = (
    # The first request shows whether there is a service and whether it accepts the key.
    _described("the known models are listed", "all of them", Probe(path="models"), _show_missing, is_list=True),
    _described(
        "the list can be filtered",
        "embed/sparse",
        Probe(path="models", query=(("type", "embed"), ("vector_type", "sparse"))),
        _show_kinds,
        is_list=True,
    ),
    *(each for known in KNOWN_MODELS.values() if known.is_documented for each in _of_known_model(known)),
    _described(
        f"max_tokens_per_sequence of {SPARSE} is a range",
        "at most 2048, 512 by default",
        _model(SPARSE),
        _show_range,
    ),
    _refused(
        "a model that does not exist is not described", _model(UNKNOWN), 404, "NOT_FOUND", f"Model {UNKNOWN} not found."
    ),
    *_of_versions(),
    Assumption(
        "an answer has the documented fields",
        f"{E5}, dense",
        DENSE,
        _has_documented_fields,
    ),
    _answered(
        "each input has an embedding, in order, and equal texts have equal ones",
        "3: equal for the equal texts, different for the other",
        DENSE,
        _is_in_order,
    ),
    _answered(f"a vector of {E5} has its dimension", "1024", DENSE, _has_numbers(1024)),
    _answered("dense values are half-precision numbers, written out in full", "all are", DENSE, _is_half_precision),
    _answered("tokens are billed", f"3 to {DENSE.most_tokens}", DENSE, _bills_between(3, DENSE.most_tokens)),
    _header("an answer is JSON", "application/json", "content-type", lambda value: value.startswith("application/json")),
    _header("an answer is not compressed", "none", "content-encoding", lambda value: value in {"", "identity"}),
    _header("an answer has an id", "any", "x-pinecone-request-id", bool),
    _answered(
        "dimension chooses the dimension",
        "384",
        _embed(LLAMA, TEXTS[:1], input_type="query", dimension=384),
        _has_numbers(384),
    ),
    _answered(
        "a text that is too long is cut by default, and only the rest is billed",
        "507",
        _embed(E5, [TOO_LONG], input_type="passage"),
        _bills_between(507, 507),
    ),
    _refused(
        "a text that is too long is refused with truncate NONE",
        _embed(E5, [TOO_LONG], input_type="passage", truncate="NONE"),
        400,
        "INVALID_ARGUMENT",
    ),
    _answered(
        "an empty text is embedded like any other",
        "1 to 2",
        _embed(E5, [""], input_type="passage"),
        _bills_between(1, _SPECIAL_TOKENS),
    ),
    _answered(
        "a sparse vector has as many indices as values and tokens",
        "sparse: as many of each; indices below 2**32",
        SPARSE_WITH_TOKENS,
        _is_sparse,
    ),
    _answered(
        "tokens of a sparse vector are sent only on request",
        "none",
        _embed(SPARSE, TEXTS[:2], input_type="passage"),
        _has_no_tokens,
    ),
    _refused("input_type is required", _embed(E5, TEXTS), 400, "INVALID_ARGUMENT", naming="input_type"),
    _refused(
        "a value that is not allowed is refused",
        _embed(E5, TEXTS, input_type="document"),
        400,
        "INVALID_ARGUMENT",
        naming="input_type",
    ),
    _refused(
        "a parameter that the model does not know is refused",
        _embed(E5, TEXTS, input_type="passage", no_such_parameter=1),
        400,
        "INVALID_ARGUMENT",
        naming="no_such_parameter",
    ),
    _refused("a request without inputs is refused", _embed(E5, (), input_type="passage"), 400, "INVALID_ARGUMENT"),
    _refused(
        "more than 96 inputs are refused",
        _embed(LLAMA, ["a"] * TOO_MANY, input_type="passage"),
        400,
        "INVALID_ARGUMENT",
        f"Input length '{TOO_MANY}' exceeded inputs limit of 96 for model '{LLAMA}'",
    ),
    _refused(
        "a model that does not exist is not found",
        _embed(UNKNOWN, TEXTS, input_type="passage", changed=FREE),
        404,
        "NOT_FOUND",
        f"Model {UNKNOWN} not found.",
    ),
    _refused("a reranking model does not embed", _embed(RERANKER, TEXTS, input_type="passage"), 400, "INVALID_ARGUMENT"),
    _refused("a body that is not JSON is refused", Probe(path="embed", body=b"{"), 400, "INVALID_ARGUMENT"),
    _refused(
        "a body of another type than JSON is refused",
        _embed(E5, TEXTS, input_type="passage", changed={"content_type": "text/plain"}),
        400,
        "INVALID_ARGUMENT",
    ),
    *(
        _refused(f"{claim} is refused", probe, 401, "UNAUTHENTICATED", "Invalid API key.")
        for claim, probe in (
            ("a wrong key", _embed(E5, TEXTS, input_type="passage", changed=WITH_WRONG_KEY)),
            ("a wrong key for a description", _model(E5, key="wrong")),
            ("a request without a key", _embed(E5, TEXTS, input_type="passage", changed=WITHOUT_KEY)),
        )
    ),
)
"""Every assumption except those about rate limits: testing a limit would use up the quota of everyone who shares it."""
