"""What was recorded and a client of OpenAI's API cannot say: nothing but this."""

from __future__ import annotations

import re

from tests.replay.asking import asking
from tests.replay.exchanges import exchanges, in_scope

#: Tools that run at Anthropic, and what goes with them; files kept there; what manages a context;
#: instructions in the midst of a conversation, which stand above it then.
UNSAID = re.compile(
    r"tools\.(?:advisor|code_execution|memory|tool_search_tool_\w+|web_fetch|web_search)_\d{8}"
    r"|tools\.defer_loading|blocks\.tool_(?:addition|reference)"
    r"|blocks\.(?:\w+_tool_result|mcp_tool_use|server_tool_use|container_upload|compaction)"
    r"|blocks\.document from a (?:file|text|url)|blocks\.image from a file"
    r"|container|context_management|mcp_servers|output_config\.task_budget"
    r"|the place of a later system message"
)


def test_what_is_left_unsaid_is_anthropics_own() -> None:
    """Of the others all can be said, and of Anthropic's requests half, word for word."""
    exact, all_of_anthropics = 0, 0
    for one in filter(in_scope, exchanges()):
        unsaid = asking(one.provider, one.path, one.request).unsaid
        assert all(UNSAID.fullmatch(name) for name in unsaid), unsaid
        if one.provider == "anthropic":
            all_of_anthropics += 1
            exact += not unsaid
        else:
            assert not unsaid
    assert exact >= 0.45 * all_of_anthropics
