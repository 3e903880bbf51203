"""Names of attributes: those of the GenAI semantic conventions, and ours for what these have no name for."""

from typing import Final

OPERATION: Final = "gen_ai.operation.name"
PROVIDER: Final = "gen_ai.provider.name"
CONVERSATION: Final = "gen_ai.conversation.id"
AGENT_ID: Final = "gen_ai.agent.id"
AGENT_NAME: Final = "gen_ai.agent.name"
MODEL: Final = "gen_ai.request.model"
STREAM: Final = "gen_ai.request.stream"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
ERROR_TYPE: Final = "error.type"

# Contents: set only where the host has opted in.
SYSTEM: Final = "gen_ai.system_instructions"
INPUT: Final = "gen_ai.input.messages"
OUTPUT: Final = "gen_ai.output.messages"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"

# Ours.
TURN_ID: Final = "trio_sagents.turn.id"
OUTCOME: Final = "trio_sagents.turn.outcome"
"""completed, interrupted, failed or cancelled."""
RESUMED: Final = "trio_sagents.turn.resumed"
"""Whether the turn went on after an interrupt."""
CANCELLED: Final = "trio_sagents.cancelled"
CAUSE: Final = "trio_sagents.cancel.cause"
TOOL_STATUS: Final = "trio_sagents.tool.status"
"""completed, failed, interrupted, cancelled or unknown."""
SUB_AGENT: Final = "trio_sagents.sub_agent.path"
