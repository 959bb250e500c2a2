"""The contract, routes, settings and headers, written out for others: TypeScript, AsyncAPI, OpenAPI, Markdown, nginx.

Everything here is a pure function from declarations to text; `write` puts the texts into the
repository, and a test compares them with what is committed.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any

import msgspec
from msgspec import inspect

from visavis import contract
from visavis.contract import ERRORS, PUSHES, REQUESTS, ROUTES, Wire
from visavis.doors.http import SECURITY_HEADERS, TRANSPORT_SECURITY

HTTP_STRUCTS: tuple[type[Wire], ...] = (
    *(struct for route in ROUTES for struct in (route.body, route.reply) if struct is not None),
    contract.ErrorReply,
)


def _structs() -> list[type[Wire]]:
    """Every Struct that crosses the wire and is named by an event or a route."""
    named: list[type[Wire]] = [contract.Connect]
    for request in REQUESTS.values():
        named += [request.type, request.reply]
    return list(dict.fromkeys([*named, *PUSHES.values(), *HTTP_STRUCTS]))


def _schemas(ref_template: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    schemas, components = msgspec.json.schema_components(_structs(), ref_template=ref_template)
    return list(schemas), components


def _shape(schema: Any) -> Any:
    """The schema without its words. What is described by a text is a remark; a field of that name has a schema."""
    match schema:
        case dict():
            remark = isinstance(schema.get("description"), str)
            return {key: _shape(value) for key, value in schema.items() if not (remark and key == "description")}
        case list():
            return [_shape(one) for one in schema]
        case _:
            return schema


def contract_hash() -> str:
    """Twelve hex digits that change whenever anything on the wire does, and not with what is said about it.

    A page with another hash loads itself anew.
    """
    components = _shape(_schemas("{name}")[1])
    events = {name: [r.type.__name__, r.reply.__name__] for name, r in REQUESTS.items()}
    pushes = {name: p.__name__ for name, p in PUSHES.items()}
    canonical = json.dumps([components, events, pushes, sorted(ERRORS)], sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


# --------------------------------------------------------------------------- TypeScript


def _ts_union(types: Iterable[inspect.Type]) -> str:
    return " | ".join(dict.fromkeys(_ts(t) for t in types))


def _ts(type_: inspect.Type) -> str:
    match type_:
        case inspect.Metadata(type=inner):
            return _ts(inner)
        case inspect.StrType():
            return "string"
        case inspect.IntType() | inspect.FloatType():
            return "number"
        case inspect.BoolType():
            return "boolean"
        case inspect.NoneType():
            return "null"
        case inspect.LiteralType(values=values):
            return " | ".join(json.dumps(v) for v in values)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            inner_ts = _ts(item)
            return f"readonly ({inner_ts})[]" if "|" in inner_ts else f"readonly {inner_ts}[]"
        case inspect.DictType(value_type=value):
            return f"Readonly<Record<string, {_ts(value)}>>"
        case inspect.UnionType(types=types):
            return _ts_union(types)
        case inspect.StructType(cls=cls):
            return cls.__name__
    raise TypeError(f"no TypeScript for {type_!r}")


def _doc(struct: type) -> str:
    return " ".join((struct.__doc__ or "").split())


def _ts_struct(info: inspect.StructType) -> str:
    lines = [f"/** {_doc(info.cls)} */", f"export interface {info.cls.__name__} {{"]
    if info.tag is not None:
        lines.append(f"  readonly {info.tag_field}: {json.dumps(info.tag)};")
    # Only what a client sends may leave a field with a default out; what it receives is always whole.
    sent = info.cls in _sent()
    for field in info.fields:
        optional = "?" if sent and not field.required else ""
        lines.append(f"  readonly {field.encode_name}{optional}: {_ts(field.type)};")
    return "\n".join([*lines, "}"])


def _sent() -> set[type]:
    bodies = [route.body for route in ROUTES if route.body is not None]
    named: list[type] = [contract.Connect, *bodies, *(r.type for r in REQUESTS.values())]
    return {info.cls for info in _walk(named)}


def _walk(named: Iterable[type]) -> list[inspect.StructType]:
    found: dict[str, inspect.StructType] = {}

    def visit(type_: inspect.Type) -> None:
        match type_:
            case inspect.Metadata(type=inner):
                visit(inner)
            case inspect.StructType(cls=cls, fields=fields):
                if cls.__name__ not in found:
                    for field in fields:
                        visit(field.type)
                    found[cls.__name__] = type_
            case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
                visit(item)
            case inspect.UnionType(types=types):
                for one in types:
                    visit(one)
            case _:
                pass

    for struct in named:
        visit(inspect.type_info(struct))
    return list(found.values())


def typescript() -> str:
    """The contract as TypeScript, in the shape of socket.io-client's own event maps."""
    parts = [
        "// Written by `python -m visavis contract`. Do not edit.\n",
        f"export const CONTRACT = {json.dumps(contract_hash())};",
        f"export const RULES_VERSION = {contract.RULES_VERSION};",
    ]
    parts += [f"export const {name} = {getattr(contract, name)};" for name in dir(contract) if name.startswith("MAX_")]
    parts += [f"\nexport type {name} = {_ts(inspect.type_info(alias))};" for name, alias in _ALIASES.items()]
    parts.append("\nexport const ERROR_CODES = [" + ", ".join(json.dumps(c) for c in ERRORS) + "] as const;")
    parts.append("export type ErrorCode = (typeof ERROR_CODES)[number];")
    parts += ["\n" + _ts_struct(info) for info in _walk(_structs())]
    parts.append(
        "\n/** A refusal: its code, and data that depends on it. */\n"
        "export interface Refusal {\n  readonly code: ErrorCode;\n  readonly [data: string]: unknown;\n}"
    )
    parts.append("\nexport type Answer<T> = { readonly ok: T } | { readonly error: Refusal };")
    parts.append("\nexport interface ClientToServerEvents {")
    parts += [
        f'  "{name}": (request: {r.type.__name__}, ack: (answer: Answer<{r.reply.__name__}>) => void) => void;'
        for name, r in REQUESTS.items()
    ]
    parts.append("}\n\nexport interface ServerToClientEvents {")
    parts += [f"  {json.dumps(name)}: (push: {p.__name__}) => void;" for name, p in PUSHES.items()]
    parts.append("}\n")
    return "\n".join(parts)


_ALIASES: dict[str, Any] = {
    "FileKind": contract.FileKind,
    "Mode": contract.Mode,
    "PartnerState": contract.PartnerState,
    "ReportReason": contract.ReportReason,
    "Body": contract.Body,
}
assert isinstance(contract.Body, UnionType)


# --------------------------------------------------------------------------- Markdown


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _fields_markdown(struct: type) -> list[str]:
    info = inspect.type_info(struct)
    assert isinstance(info, inspect.StructType)
    if not info.fields:
        return ["No fields.", ""]
    rows = ["| field | type | |", "|---|---|---|"]
    for field in info.fields:
        note = "" if field.required else "optional"
        rows.append(f"| `{field.encode_name}` | `{_cell(_ts(field.type))}` | {note} |")
    return [*rows, ""]


def events_markdown() -> str:
    """Every event, for people."""
    out = [
        "# Events",
        "",
        "Written by `python -m visavis contract` from `backend/visavis/contract.py`. Do not edit.",
        "",
        "Every request is acknowledged with `{ok: reply}` or `{error: {code, ...}}`. A connection presents "
        "`auth: {token, contract, claim?}` and is first told `session:state`.",
        "",
        "## Requests",
        "",
    ]
    for name, r in REQUESTS.items():
        out += [f"### `{name}`", "", _doc(r.type), "", f"Cost {r.cost:g}. Reply: `{r.reply.__name__}`.", ""]
        out += _fields_markdown(r.type)
    out += ["## Pushes", ""]
    for name, p in PUSHES.items():
        out += [f"### `{name}`", "", _doc(p), "", *_fields_markdown(p)]
    shown = {r.type for r in REQUESTS.values()} | set(PUSHES.values())
    out += ["## Structures", ""]
    for info in _walk(_structs()):
        if info.cls not in shown:
            out += [f"### {info.cls.__name__}", "", _doc(info.cls), "", *_fields_markdown(info.cls)]
    out += ["## Error codes", "", "| code | HTTP status | meaning |", "|---|---|---|"]
    out += [f"| `{code}` | {status} | {meaning} |" for code, (status, meaning) in ERRORS.items()]
    return "\n".join(out) + "\n"


# --------------------------------------------------------------------------- AsyncAPI, OpenAPI


def asyncapi() -> str:
    """The Socket.IO events as an AsyncAPI 3 document."""
    schemas, components = _schemas("#/components/schemas/{name}")
    ref = dict(zip(_structs(), schemas, strict=True))
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, r in REQUESTS.items():
        key = name.replace(":", "_")
        channels[key] = {
            "address": name,
            "messages": {
                "request": {"summary": _doc(r.type), "payload": ref[r.type]},
                "reply": {
                    "payload": {
                        "oneOf": [
                            {"type": "object", "properties": {"ok": ref[r.reply]}, "required": ["ok"]},
                            ref[contract.ErrorReply],
                        ]
                    }
                },
            },
        }
        operations[key] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{key}"},
            "messages": [{"$ref": f"#/channels/{key}/messages/request"}],
            "reply": {
                "channel": {"$ref": f"#/channels/{key}"},
                "messages": [{"$ref": f"#/channels/{key}/messages/reply"}],
            },
        }
    for name, p in PUSHES.items():
        key = "push_" + name.replace(":", "_")
        channels[key] = {"address": name, "messages": {"push": {"summary": _doc(p), "payload": ref[p]}}}
        operations[key] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{key}"},
            "messages": [{"$ref": f"#/channels/{key}/messages/push"}],
        }
    document = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Visavis events",
            "version": contract_hash(),
            "description": "Socket.IO events. Requests are acknowledged; everything is JSON in text packets.",
        },
        "channels": channels,
        "operations": operations,
        "components": {"schemas": components},
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def openapi() -> dict[str, Any]:
    """The REST routes as an OpenAPI 3.1 document."""
    schemas, components = _schemas("#/components/schemas/{name}")
    ref = dict(zip(_structs(), schemas, strict=True))

    def content(schema: dict[str, Any]) -> dict[str, Any]:
        return {"application/json": {"schema": schema}}

    paths: dict[str, Any] = {}
    for route in ROUTES:
        answer: dict[str, Any] = {"description": "Done."}
        if route.status != 204 and route.method != "HEAD":
            answer = {
                "description": _doc(route.reply) if route.reply else "The document.",
                "content": content(ref[route.reply] if route.reply else {"type": "object"}),
            }
        operation: dict[str, Any] = {
            "operationId": route.name,
            "summary": route.summary,
            "responses": {
                str(route.status): answer,
                "default": {"description": _doc(contract.ErrorReply), "content": content(ref[contract.ErrorReply])},
            },
        }
        if names := re.findall(r"{(\w+)}", route.path):
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ]
        if route.body is not None:
            operation["requestBody"] = {"required": True, "content": content(ref[route.body])}
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Visavis",
            "version": contract_hash(),
            "description": "Getting a guest, and asking how the server is. Conversations run over Socket.IO.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def nginx_headers() -> str:
    """The security headers, for what nginx answers itself; what it passes on has them already."""
    headers = {**SECURITY_HEADERS, "Strict-Transport-Security": TRANSPORT_SECURITY}
    lines = [f'add_header {name} "{value}" always;' for name, value in headers.items()]
    about = "# Written by `python -m visavis contract` from `backend/visavis/doors/http.py`. Do not edit."
    return "\n".join([about, *lines]) + "\n"


def texts(settings_markdown: str) -> dict[str, str]:
    """Every generated file of the repository: its path and its text."""
    return {
        "web/src/contract.gen.ts": typescript(),
        "docs/events.md": events_markdown(),
        "docs/asyncapi.json": asyncapi(),
        "docs/openapi.json": json.dumps(openapi(), indent=2, ensure_ascii=False) + "\n",
        "docs/settings.md": settings_markdown,
        "ecosystem/nginx/security-headers.conf": nginx_headers(),
    }


def write(root: Path, files: dict[str, str]) -> list[str]:
    """Bring the files under `root` up to date; returns the paths that changed."""
    changed = []
    for name, text in files.items():
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            changed.append(name)
    return changed
