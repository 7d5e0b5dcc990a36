"""Errors that end a command with one clear line instead of a traceback."""


class UserError(Exception):
    """Something outside the program must change: a server, a setting, a file. The message says what and how."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class ServerUnavailableError(UserError):
    """A needed server does not answer."""

    def __init__(self, what: str, address: str, hint: str) -> None:
        super().__init__(f"{what} does not answer at {address}; {hint}")
