"""The command line: `trio-sagents chat`, `trio-sagents serve` and `trio-sagents migrate`. It uses only public names, like any user.

The modules, lowest first; each one imports only modules that come before it:

    _words       pieces of text for a terminal, and the words for what is shown
    _lines       what the chat reads: lines, and signals instead of a line
    _colours     colours, with rich
    _screen      the terminal, as something to write to
    _prompt      a line editor, with prompt_toolkit
    _keyboard    the best reader of lines that there is
    _models      which model answers
    _servers     MCP servers from the command line
    _arithmetic  exact arithmetic, as a tool
    _notebook    notes that last, as tools
    _tools       the tools of the chat
    _folder      the files of the folder in which the person works
    _agent       the agent of the chat
    _setup       from the command line and the environment to what a chat runs on
    _catalogue   the conversations in the database, as a person names them
    _progress    what is shown while an answer is on its way
    _news        what middleware tells viewers, as lines
    _render      from events to text
    _preview     a call that waits, as a person sees it
    _decide      asking a person about one call
    _deciding    the decisions of one conversation
    _commands    the commands that begin with "/"
    _chat        the interactive chat
    _once        one message, one answer
    _migrate     a database of an earlier version, rewritten
    _nodes       the nodes of a cluster, as a table
    _serve       the bridge on a server of its own
    _main        the command `trio-sagents`
    __main__     `python -m trio_sagents.cli`
"""

from trio_sagents.cli._main import main

__all__ = ("main",)
