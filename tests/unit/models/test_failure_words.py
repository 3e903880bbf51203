"""What providers say when they fail, in their own words, and what that means."""

import pytest

from trio_sagents.exceptions import MODEL_FAILURE_KINDS, ModelFailed
from trio_sagents.models._errors import read_detail
from trio_sagents.models._failure_words import kind_of_failure

TOO_LONG = [
    ("Zhipu", 400, "Prompt 超长"),
    ("Zhipu, older", 400, "输入内容过长"),
    ("Baidu", 400, "输入内容超出模型最大长度限制"),
    ("SambaNova", 400, "prompt tokens (9000) exceed max_seq_len (8192)"),
    ("TensorRT", 400, "Sequence length 9000 exceeds max_sequence_length 8192"),
    ("OpenAI", 400, "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."),
    ("OpenAI Responses", 400, "Your input exceeds the context window of this model. Please adjust your input and try again."),
    ("OpenAI GPT-5", 400, "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens."),
    (
        "OpenAI, per minute",
        429,
        "Request too large for gpt-4o in organization o on tokens per min (TPM): Limit 30000, Requested 40000.",
    ),
    ("OpenAI, one string", 400, "Invalid 'messages[0].content': string too long. Expected a string with maximum length 1048576."),
    ("Anthropic", 400, "prompt is too long: 214315 tokens > 204798 maximum"),
    (
        "Anthropic, with max_tokens",
        400,
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input",
    ),
    ("Anthropic, bytes", 413, "Request exceeds the maximum size"),
    ("Bedrock", 400, "Input is too long for requested model."),
    ("Gemini", 400, "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."),
    ("Vertex", 400, "the input token count is 2000000 but model only supports up to 1048576"),
    ("DeepSeek", 400, "This model's maximum context length is 65536 tokens. However, you requested 70000 tokens"),
    ("Groq", 400, "Please reduce the length of the messages or completion."),
    (
        "Groq, per minute",
        413,
        "Request too large for model `l` in organization `o` on tokens per minute (TPM): Limit 6000",
    ),
    ("Cerebras", 400, "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192"),
    ("Mistral", 400, "Prompt contains 65673 tokens and 0 draft tokens, too large for model with 32768 maximum context length"),
    ("OpenRouter", 400, "This endpoint's maximum context length is 32768 tokens. However, you requested about 40000 tokens"),
    ("xAI", 400, "This model's maximum prompt length is 131072 but the request contains 537812 tokens."),
    ("Together", 422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8193. Given: 9000"),
    ("TGI", 422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000"),
    ("vLLM", 400, "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens in the messages"),
    ("vLLM, decoder", 400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096."),
    ("SGLang", 400, "The input (5000 tokens) is longer than the model's context length (4096 tokens)."),
    ("SGLang, requested", 400, "Requested token count exceeds the model's maximum context length of 4096 tokens."),
    ("SGLang, truncate", 400, "Input length (5000 tokens) exceeds the maximum allowed length (4091 tokens)."),
    ("llama.cpp", 400, "the request exceeds the available context size (4096 tokens), try increasing it"),
    ("llama.cpp, old", 500, "Context size has been exceeded."),
    ("LM Studio", 400, "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded with 4096"),
    ("LM Studio, keep", 400, "The number of tokens to keep from the initial prompt is greater than the context length."),
    ("LM Studio, overflow", 400, "Reached context length of 4096 tokens, but this model does not support mid-generation context overflow"),
    ("Ollama", 400, "input length exceeds the context length"),
    ("Ollama, prompt", 400, "prompt too long; exceeded max context length by 1200 tokens"),
    ("LiteLLM", 400, "litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException"),
    ("Cohere", 400, "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000"),
    ("MiniMax", 400, "invalid params, context window exceeds limit (2013)"),
    ("Moonshot", 400, "Invalid request: Your request exceeded model token limit: 8192"),
    ("Zhipu", 400, "Prompt exceeds max length"),
    ("DashScope", 400, "Range of input length should be [1, 30720]"),
    ("Fireworks", 400, "The prompt is too long: 40000, model maximum context length: 32767"),
    ("GitHub Models", 413, "Request body too large for gpt-4o model. Max size: 8000 tokens."),
    ("Copilot", 400, "prompt token count of 150000 exceeds the limit of 128000"),
    ("nginx", 413, "Request Entity Too Large"),
]
OTHERS = [
    ("auth", None, "Not authenticated"),
    ("auth", None, "login fail: Please carry the API secret key"),
    ("auth", None, "Unauthorized"),
    ("auth", None, "Access denied due to invalid subscription key"),
    ("auth", None, "Invalid token"),
    ("overloaded", None, "The model is currently unavailable"),
    ("auth", 401, "Incorrect API key provided: sk-1. You can find your API key at"),
    ("auth", 400, "API key not valid. Please pass a valid API key."),
    ("auth", 401, "No auth credentials found"),
    ("auth", 403, "You do not have access to this model."),
    ("quota", 400, "Your credit balance is too low to access the Anthropic API."),
    ("quota", 402, "Insufficient Balance"),
    ("quota", 402, "This request requires more credits, or fewer max_tokens."),
    ("rate_limited", 429, "Rate limit reached for gpt-4 on tokens per min (TPM): Limit 10000, Used 9000, Requested 2000."),
    ("rate_limited", 429, "You exceeded your current quota, please check your plan and billing details. Please retry in 22.2s."),
    ("overloaded", 529, "Overloaded"),
    ("overloaded", 503, "Loading model"),
    ("overloaded", 503, "The engine is currently overloaded, please try again later"),
    ("server_error", 500, "The server had an error while processing your request."),
    ("server_error", 502, "Bad gateway"),
    ("timeout", 504, "Gateway Time-out"),
    ("refused_content", 400, "Could not process image"),
    ("refused_content", 400, "messages.0.content.1.image.source.base64: image exceeds 5 MB maximum: 6000000 bytes > 5242880 bytes"),
    ("refused_content", 400, "Image does not match the provided media type image/png"),
    ("refused_content", 400, "Error while downloading https://example.com/gone.png."),
    ("refused_content", 400, "Unable to download the file. Please verify the URL and try again."),
    ("refused_content", 400, "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."),
    ("refused_content", 400, "Invalid prompt: your prompt was flagged as potentially violating our usage policy."),
    ("refused_content", 400, "Output blocked by content filtering policy"),
    ("refused_content", 400, "Content Exists Risk"),
    ("refused_content", 400, "Input data may contain inappropriate content."),
    ("refused_content", 404, "No endpoints found that support image input"),
    ("refused_content", 403, "Your input was flagged"),
    ("refused_content", 400, "unknown variant `image_url`, expected `text`"),
    ("refused_content", 500, "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"),
    ("refused_content", 400, "the image cannot be fetched"),
    ("refused_content", 400, "the text was blocked by the filter"),
    ("invalid_request", 400, "max_tokens is too large: 100000. This model supports at most 16384 completion tokens."),
    ("invalid_request", 400, "`tool_use` ids were found without `tool_result` blocks immediately after"),
    ("invalid_request", 404, "The model `gpt-9` does not exist or you do not have access to it."),
    ("invalid_request", 422, "extra_forbidden"),
]


@pytest.mark.parametrize(("status", "words"), [case[1:] for case in TOO_LONG], ids=[case[0] for case in TOO_LONG])
def test_kind_when_too_long(status: int, words: str) -> None:
    """A request that is too long is told apart, whatever words and status a provider has for it; with a status of 200, too."""
    assert ["context_overflow"] * 2 == [kind_of_failure(status, "", "", words), kind_of_failure(None, "", "", words)]


@pytest.mark.parametrize(("kind", "status", "words"), OTHERS)
def test_kind_of_other_words(kind: str, status: int | None, words: str) -> None:
    """Each failure is of the kind that a host can act on."""
    assert kind == kind_of_failure(status, "", "", words)


@pytest.mark.parametrize(
    ("kind", "status", "named", "code"),
    [
        ("context_overflow", 400, "invalid_request_error", "context_length_exceeded"),
        ("context_overflow", 400, "exceed_context_size_error", "400"),
        ("context_overflow", 413, "request_too_large", ""),
        ("refused_content", 400, "invalid_request_error", "content_filter"),
        ("refused_content", 400, "image_generation_user_error", "content_policy_violation"),
        ("refused_content", 400, "invalid_request_error", "invalid_image_url"),
        ("quota", 429, "insufficient_quota", "insufficient_quota"),
        ("rate_limited", None, "rate_limit_error", ""),
        ("rate_limited", 429, "RESOURCE_EXHAUSTED", "429"),
        ("overloaded", None, "overloaded_error", ""),
        ("server_error", None, "api_error", ""),
        ("server_error", None, "InternalServerError", ""),
        ("server_error", 500, "", ""),
        ("timeout", 408, "timeout_error", ""),
        ("auth", 400, "invalid_request_error", "invalid_api_key"),
        ("invalid_request", 400, "api_error", ""),
        ("invalid_request", None, "invalid_request_error", ""),
        ("unknown", None, "", ""),
        ("unknown", 200, "whatever", ""),
    ],
)
def test_kind_of_types_and_codes(kind: str, status: int | None, named: str, code: str) -> None:
    """A type or a code says more than a status, but no status of 400 becomes one that is asked again for its type alone."""
    assert kind == kind_of_failure(status, named, code, "")


@pytest.mark.parametrize(
    ("body", "kind", "code", "words"),
    [
        ({"error": {"message": "No.", "type": "t", "code": "c"}}, "t", "c", "No."),
        ({"type": "error", "error": {"type": "t", "message": "No."}}, "t", "", "No."),
        ([{"error": {"code": 400, "message": "No.", "status": "INVALID_ARGUMENT"}}], "INVALID_ARGUMENT", "400", "No."),
        ({"object": "error", "message": "No.", "type": "t", "code": 500}, "t", "500", "No."),
        ({"error": "No."}, "", "", "No."),
        ({"error": "not_found", "message": "No."}, "", "", "not_found: No."),
        ({"detail": "No."}, "", "", "No."),
        ({"detail": [{"loc": ["body"], "msg": "No.", "type": "t"}, {"msg": "Nor this."}]}, "", "", "No.; Nor this."),
        ({"message": {"detail": [{"msg": "No."}]}}, "", "", "No."),
        ({"error": {"message": '{"error": {"message": "No."}}'}}, "", "", "No."),
        (
            {"error": {"code": 502, "message": "It failed", "metadata": {"raw": "No."}}},
            "",
            "502",
            "It failed: No.",
        ),
        ({"code": 1261, "msg": "No."}, "", "1261", "No."),
        ({"errors": [{"message": "No."}]}, "", "", "No."),
        ({"strange": 1}, "", "", '{"strange": 1}'),
        ("upstream connect error", "", "", "upstream connect error"),
        ('{"error": "No."}', "", "", "No."),
        ("<html>", "", "", ""),
        (None, "", "", ""),
        ([], "", "", ""),
        ({}, "", "", ""),
    ],
)
def test_detail_of_every_form(body: object, kind: str, code: str, words: str) -> None:
    """A provider's words are found, whatever form its errors have."""
    detail = read_detail(body)

    assert (kind, code, words) == (detail.kind, detail.code, detail.words)


def test_detail_when_a_wait_is_named() -> None:
    """Google names the wait inside the error."""
    detail = read_detail([{"error": {"code": 429, "details": [{"@type": "x"}, {"@type": "RetryInfo", "retryDelay": "22.5s"}]}}])

    assert 22.5 == detail.retry_after


def test_kinds_when_a_failure_is_made() -> None:
    """A kind decides whether to ask again, unless the error says so itself; there is no other kind."""
    assert [True, False, False, True] == [
        ModelFailed("x", kind="overloaded").retryable,
        ModelFailed("x", kind="auth").retryable,
        ModelFailed("x", kind="overloaded", retryable=False).retryable,
        ModelFailed("x", retryable=True).retryable,
    ]
    assert "unknown" == ModelFailed("x").kind
    assert 13 == len(MODEL_FAILURE_KINDS)
    with pytest.raises(ValueError, match="busy"):
        ModelFailed("x", kind="busy")  # type: ignore[arg-type]  # what a host may do
