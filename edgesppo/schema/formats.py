"""The supported values of `format`, each as a pattern.

The patterns are stricter than the standards where parsers disagree: no leap seconds, no quoted or
international addresses, no host without a dot, no year 0, no durations in months or years, no IPv6
address that contains an IPv4 address.
"""

from __future__ import annotations

_YEAR = "(?:000[1-9]|00[1-9]\\d|0[1-9]\\d{2}|[1-9]\\d{3})"
# Years divisible by 4 but not by 100, or by 400.
_LEAP_YEAR = "(?:\\d{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|02-(?:0[1-9]|1\\d|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_HOUR_MINUTE = "(?:[01]\\d|2[0-3]):[0-5]\\d"
_TIME = f"{_HOUR_MINUTE}:[0-5]\\d(?:\\.\\d{{1,6}})?(?:Z|[+-]{_HOUR_MINUTE})"
_LABEL = "[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"
_HOST = f"{_LABEL}(?:\\.{_LABEL}){{0,3}}\\.[a-z]{{2,10}}"
_BYTE = "(?:25[0-5]|2[0-4]\\d|1\\d{2}|[1-9]?\\d)"
_GROUP = "[0-9a-fA-F]{1,4}"
_IPV6 = "|".join(
    [f"(?:{_GROUP}:){{7}}{_GROUP}", f"(?:{_GROUP}:){{1,7}}:", f":(?::{_GROUP}){{1,7}}", "::"]
    # with i groups before the "::"
    + [f"(?:{_GROUP}:){{{i}}}(?::{_GROUP}){{1,{7 - i}}}" for i in range(1, 7)]
)
_URI_LETTER = "(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9A-F]{2})"

# The only supported value of `contentEncoding`.
BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

FORMATS = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    "duration": "^P(?:\\d{1,4}W|\\d{1,4}D|(?:\\d{1,4}D)?T(?:\\d{1,4}H(?:\\d{1,2}M)?(?:\\d{1,2}S)?"
    "|\\d{1,4}M(?:\\d{1,2}S)?|\\d{1,5}S))$",
    "uuid": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
    "email": f"^[a-zA-Z0-9_+-]{{1,32}}(?:\\.[a-zA-Z0-9_+-]{{1,32}}){{0,3}}@{_HOST}$",
    "hostname": f"^{_HOST}$",
    "ipv4": f"^{_BYTE}(?:\\.{_BYTE}){{3}}$",
    "ipv6": f"^(?:{_IPV6})$",
    "uri": f"^https?://{_HOST}(?::[1-9]\\d{{0,3}})?"
    f"(?:/{_URI_LETTER}*)*(?:\\?(?:{_URI_LETTER}|[/?])*)?(?:#(?:{_URI_LETTER}|[/?])*)?$",
}
