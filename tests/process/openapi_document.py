"""An OpenAPI 3.1 document as a judge: what it does not declare is a failure, what it declares has to be seen."""

import datetime
import json
import re

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "null": lambda v: v is None,
}
# Says nothing about a value.
SAYS_NOTHING = {"description", "default"}


class Undeclared(AssertionError):
    pass


class Operation:
    def __init__(self, document, path, method, what):
        self.document, self.path, self.method, self.what = document, path, method.upper(), what
        self.name = what["operationId"]
        self.scopes = sorted({scope for way in what["security"] for scopes in way.values() for scope in scopes})
        body = what.get("requestBody", {})
        self.body_types = list(body.get("content", {}))
        self.body_required = body.get("required", False)

    @property
    def statuses(self):
        return {int(status) for status in self.what["responses"]}

    def fits(self, body):
        """Whether a request's body, as it came out of JSON, is one that the document allows."""
        content = next(iter(self.what["requestBody"]["content"].values()))
        try:
            self.document.check_value(content["schema"], body, "body")
        except Undeclared:
            return False
        return True


class OpenApiDocument:
    def __init__(self, path):
        self.root = json.loads(path.read_text(encoding="utf-8"))
        self.operations = {}
        for template, item in self.root["paths"].items():
            for method in METHODS:
                if method in item:
                    operation = Operation(self, template, method, item[method])
                    if operation.name in self.operations:
                        raise ValueError(f"{operation.name}: stands twice")
                    self.operations[operation.name] = operation
        self.seen = set()  # (operation's name, status)

    def methods(self, template):
        return {method.upper() for method in METHODS if method in self.root["paths"][template]}

    def unseen(self):
        declared = {(name, status) for name, one in self.operations.items() for status in one.statuses}
        return sorted(declared - self.seen)

    def resolve(self, what):
        while "$ref" in what:
            if set(what) - {"$ref"}:
                raise ValueError(f"{what}: a reference with something beside it")
            found = self.root
            for part in what["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            what = found
        return what

    def judge(self, name, status, headers, body):
        """Raises Undeclared for an answer that the operation does not declare. `body`: bytes."""
        operation = self.operations[name]
        if status not in operation.statuses:
            raise Undeclared(f"{name}: {status} is not declared: {body!r}")
        response = self.resolve(operation.what["responses"][str(status)])
        for header, what in response.get("headers", {}).items():
            what, value = self.resolve(what), headers.get(header)
            if value is not None:
                self.check_value(what["schema"], value, header)
            elif what.get("required", False):
                raise Undeclared(f"{name}: {status}: no {header}")
        content = response.get("content", {})
        kind = headers.get("Content-Type")
        if kind is None and not content:
            if body:
                raise Undeclared(f"{name}: {status}: an undeclared body {body!r}")
        elif kind not in content:
            raise Undeclared(f"{name}: {status}: Content-Type {kind} is none of {list(content)}")
        else:
            self.check_value(content[kind]["schema"], json.loads(body), f"{name}: {status}")
        self.seen.add((name, status))

    def check_value(self, schema, value, where):
        schema = self.resolve(schema)
        for keyword, wanted in schema.items():
            if keyword in SAYS_NOTHING:
                continue
            if not getattr(self, "_" + keyword)(wanted, value, where, schema):
                raise Undeclared(f"{where}: {keyword} {wanted!r}: {value!r}")

    def _type(self, wanted, value, _where, _schema):
        return any(TYPES[one](value) for one in ([wanted] if isinstance(wanted, str) else wanted))

    def _properties(self, wanted, value, where, _schema):
        for name, schema in wanted.items() if isinstance(value, dict) else ():
            if name in value:
                self.check_value(schema, value[name], f"{where}.{name}")
        return True

    def _required(self, wanted, value, _where, _schema):
        return not isinstance(value, dict) or not set(wanted) - set(value)

    def _additionalProperties(self, wanted, value, _where, schema):
        return wanted is not False or not isinstance(value, dict) or not set(value) - set(schema["properties"])

    def _items(self, wanted, value, where, _schema):
        for i, one in enumerate(value if isinstance(value, list) else ()):
            self.check_value(wanted, one, f"{where}[{i}]")
        return True

    def _enum(self, wanted, value, _where, _schema):
        return value in wanted

    def _pattern(self, wanted, value, _where, _schema):
        return not isinstance(value, str) or re.search(wanted, value) is not None

    def _format(self, wanted, value, _where, _schema):
        if wanted != "date-time":
            raise ValueError(f"{wanted}: no such format here")
        return value is None or bool(datetime.datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ"))

    def _minimum(self, wanted, value, _where, _schema):
        return not isinstance(value, int) or value >= wanted

    def _maximum(self, wanted, value, _where, _schema):
        return not isinstance(value, int) or value <= wanted

    def _minLength(self, wanted, value, _where, _schema):
        return not isinstance(value, str) or len(value) >= wanted

    def _maxLength(self, wanted, value, _where, _schema):
        return not isinstance(value, str) or len(value) <= wanted

    def _minItems(self, wanted, value, _where, _schema):
        return not isinstance(value, list) or len(value) >= wanted

    def _maxItems(self, wanted, value, _where, _schema):
        return not isinstance(value, list) or len(value) <= wanted
