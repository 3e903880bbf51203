"""Exact arithmetic on text, without `eval`: a small recursive-descent parser over fractions.

    sum     := product (("+" | "-") product)*
    product := unary (("*" | "/" | "//" | "%") unary)*
    unary   := ("+" | "-") unary | power
    power   := number | "(" sum ")", then optionally "**" unary

The rules of precedence are those of Python. Every operation is bounded before it is done, so no text keeps a thread busy.
"""

import re
from fractions import Fraction
from typing import Final

MAX_TEXT: Final = 1_000
MAX_DEPTH: Final = 50
MAX_BITS: Final = 10_000
"""Of the numerator and of the denominator; about 3,000 digits."""
_DIGITS: Final = 12
_TOKEN: Final = re.compile(r"\s*(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))|(?P<sign>\*\*|//|[-+*/%()^]))", re.ASCII)


class ArithmeticRefused(ValueError):
    """The text is not arithmetic, or its result is too large."""


def calculate(expression: str) -> str:
    """Return the value of `expression` as text: exact where it has finitely many decimals, else with its fraction.

    Args:
        expression: numbers, `+ - * / // % **` (or `^`) and parentheses; at most `MAX_TEXT` characters.

    Raises:
        ArithmeticRefused: it is something else, divides by zero, or grows too large.
    """
    return render(evaluate(expression))


def evaluate(expression: str) -> Fraction:
    """Return the exact value of `expression`; ArithmeticRefused as in `calculate`."""
    if len(expression) > MAX_TEXT:
        raise ArithmeticRefused(f"an expression must have at most {MAX_TEXT} characters, not {len(expression)}")
    return _Parser(_tokens(expression)).parse()


def render(value: Fraction) -> str:
    """Return `value` as text."""
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    for prime in (2, 5):
        count = 0
        while rest % prime == 0:
            rest //= prime
            count += 1
        places = max(places, count)
    if rest == 1 and places <= _DIGITS:
        return _decimal(value, places)
    return f"{_decimal(value, _DIGITS)}… (exactly {value})" if value.denominator < 10**9 else f"{_decimal(value, _DIGITS)}…"


def _decimal(value: Fraction, places: int) -> str:
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    place = 0
    while text[place:].strip():
        match = _TOKEN.match(text, place)
        if match is None:
            raise ArithmeticRefused(f"{text[place:].strip()[:20]!r} is not arithmetic")
        tokens.append("**" if match["sign"] == "^" else match[0].strip())
        place = match.end()
    return tokens


class _Parser:
    """One pass over the tokens."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._place = 0
        self._depth = 0

    def parse(self) -> Fraction:
        value = self._sum()
        if self._place < len(self._tokens):
            raise ArithmeticRefused(f"{self._tokens[self._place]!r} is not expected there")
        return value

    def _take(self, *signs: str) -> str | None:
        if self._place < len(self._tokens) and self._tokens[self._place] in signs:
            self._place += 1
            return self._tokens[self._place - 1]
        return None

    def _sum(self) -> Fraction:
        value = self._product()
        while (sign := self._take("+", "-")) is not None:
            other = self._product()
            value = _bounded(value + other if sign == "+" else value - other)
        return value

    def _product(self) -> Fraction:
        value = self._unary()
        while (sign := self._take("*", "/", "//", "%")) is not None:
            value = _combine(value, sign, self._unary())
        return value

    def _unary(self) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ArithmeticRefused(f"the parentheses are nested deeper than {MAX_DEPTH} levels")
        try:
            sign = self._take("+", "-")
            if sign is not None:
                return -self._unary() if sign == "-" else self._unary()
            return self._power()
        finally:
            self._depth -= 1

    def _power(self) -> Fraction:
        base = self._atom()
        if self._take("**") is None:
            return base
        return _raise_to(base, self._unary())

    def _atom(self) -> Fraction:
        if self._take("(") is not None:
            value = self._sum()
            if self._take(")") is None:
                raise ArithmeticRefused("a parenthesis is not closed")
            return value
        if self._place == len(self._tokens):
            raise ArithmeticRefused("a number is missing at the end")
        token = self._tokens[self._place]
        if not (token[0].isdigit() or token[0] == "."):
            raise ArithmeticRefused(f"{token!r} is not expected there")
        self._place += 1
        whole, _, places = token.partition(".")
        return Fraction(int((whole + places) or "0"), 10 ** len(places))


def _combine(value: Fraction, sign: str, other: Fraction) -> Fraction:
    if sign == "*":
        return _bounded(value * other)
    if other == 0:
        raise ArithmeticRefused("division by zero")
    match sign:
        case "/":
            return _bounded(value / other)
        case "//":
            return _bounded(Fraction(value // other))
        case _:
            return _bounded(value % other)


def _raise_to(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ArithmeticRefused("an exponent must be a whole number")
    power = exponent.numerator
    if base == 0 and power < 0:
        raise ArithmeticRefused("division by zero")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) != 1 and base != 0 and abs(power) * (size - 1) > MAX_BITS:
        raise ArithmeticRefused("the result is too large")
    if abs(base) == 1:
        power %= 2
    return _bounded(Fraction(base**power))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise ArithmeticRefused("the result is too large")
    return value
