"""Validation of an image: every digest, size and diff_id computed anew, and the rules that our layers keep."""

from __future__ import annotations

import hashlib
import posixpath
import stat
import tarfile
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field

from prebuilt.core.descriptor import Descriptor
from prebuilt.core.platforms import Platform
from prebuilt.oci.compression import decompress
from prebuilt.oci.image import ImageConfig, ImageIndex, ImageManifest, select_manifest
from prebuilt.oci.layer import read_layer
from prebuilt.oci.media_types import INDEXES, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, OCI_MANIFEST
from prebuilt.oci.repository import Manifest, Repository
from prebuilt.testing.image_tree import Tree, TreeNode, node_of, put_layer

_MODES = {"file": {0o644, 0o755}, "directory": {0o755}, "symlink": {0o777}, "hardlink": {0o644, 0o755}}
_GZIP_HEADER_BYTES = 10


class InvalidImageError(AssertionError):
    """An image breaks rules. It is an assertion, so that a test that validates fails rather than errs.

    Attributes:
        problems: One line for each.
    """

    def __init__(self, reference: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join((f"the image {reference} is not valid:", *(f"  {line}" for line in problems))))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport:
    """One layer as it was read: what its manifest says of it, its diff_id, and its own nodes."""

    descriptor: Descriptor
    diff_id: str
    nodes: Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReport:
    """An image as it was read.

    Attributes:
        tree: The union of the layers.
        problems: Rules that it breaks, one line each.
    """

    reference: str
    manifest: ImageManifest
    config: ImageConfig
    descriptor: Descriptor
    layers: tuple[LayerReport, ...]
    tree: Tree
    problems: tuple[str, ...]


@dataclass(slots=True)
class _Reading:
    """An image while it is read."""

    repository: Repository
    problems: list[str] = field(default_factory=list)

    def expect(self, problem: str, *, holds: bool) -> None:
        if not holds:
            self.problems.append(problem)


def validate(
    repository: Repository,
    reference: str,
    *,
    base: ImageReport | None = None,
    platform: Platform | None = None,
    foreign: bool = False,
) -> ImageReport:
    """Return the report of a valid image.

    Args:
        repository: Where the image is.
        reference: A tag or digest in it.
        base: Report of the image that this one stands on. Its layers must be the lowest here, and are not asked to be as ours are.
        platform: What the image must be for; also chooses from an index.
        foreign: Whether another builder may have written it: with Docker's media types, times, any order in layers, and layers
            of the base compressed anew.

    Raises:
        InvalidImageError: It breaks a rule; all that it breaks are named.
    """
    report = inspect_image(repository, reference, base=base, platform=platform, foreign=foreign)
    if report.problems:
        raise InvalidImageError(f"{repository.name} {reference}", report.problems)
    return report


def inspect_image(
    repository: Repository,
    reference: str,
    *,
    base: ImageReport | None = None,
    platform: Platform | None = None,
    foreign: bool = False,
) -> ImageReport:
    """Return the report of an image, valid or not; arguments as those of :func:`validate`.

    Raises:
        LookupError: It is not there.
    """
    reading = _Reading(repository)
    stored = _stored_manifest(reading, reference, platform)
    manifest = ImageManifest.parse(stored.data)
    config = ImageConfig.parse(_blob(reading, manifest.config))
    lowest = len(base.layers) if base else 0
    layers = tuple(
        _layer(reading, number, layer, is_ours=number >= lowest and not foreign)
        for number, layer in enumerate(manifest.layers)
    )
    _check_image(reading, config, layers, platform)
    if not foreign:
        _check_types(reading, manifest)
    if base is not None:
        _check_base(reading, manifest, config, base, foreign=foreign)
    tree: Tree = {}
    for layer in layers:
        put_layer(tree, layer.nodes)
    return ImageReport(
        reference=reference,
        manifest=manifest,
        config=config,
        descriptor=stored.descriptor,
        layers=layers,
        tree=tree,
        problems=tuple(reading.problems),
    )


def _stored_manifest(reading: _Reading, reference: str, platform: Platform | None) -> Manifest:
    stored = reading.repository.get_manifest(reference)
    if stored is None:
        raise LookupError(f"no manifest {reference} in {reading.repository.name}")
    _check_bytes(reading, "the manifest", stored.descriptor, stored.data)
    reading.expect(
        f"the tag {reference} resolves to something else than it gives",
        holds=reading.repository.resolve(reference) == stored.descriptor,
    )
    if stored.descriptor.media_type in INDEXES:
        chosen = select_manifest(ImageIndex.parse(stored.data), platform or Platform.host(), at=reference)
        return _stored_manifest(reading, chosen.digest, platform)
    return stored


def _blob(reading: _Reading, descriptor: Descriptor) -> bytes:
    with reading.repository.open_blob(descriptor) as chunks:
        data = b"".join(chunks)
    _check_bytes(reading, f"the blob {descriptor.digest}", descriptor, data)
    return data


def _check_bytes(reading: _Reading, what: str, descriptor: Descriptor, data: bytes) -> None:
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    reading.expect(f"{what} has the digest {digest}, not {descriptor.digest}", holds=digest == descriptor.digest)
    reading.expect(f"{what} has {len(data)} bytes, not {descriptor.size}", holds=len(data) == descriptor.size)


def _check_types(reading: _Reading, manifest: ImageManifest) -> None:
    reading.expect(f"the manifest's media type is {manifest.media_type}", holds=manifest.media_type == OCI_MANIFEST)
    reading.expect(
        f"the config's media type is {manifest.config.media_type}", holds=manifest.config.media_type == OCI_CONFIG
    )


def _check_image(
    reading: _Reading, config: ImageConfig, layers: Sequence[LayerReport], platform: Platform | None
) -> None:
    diff_ids = tuple(layer.diff_id for layer in layers)
    history = config.data.get("history") or []
    told = sum(not entry.get("empty_layer") for entry in history)
    reading.expect(f"the config says diff_ids {config.diff_ids}, not {diff_ids}", holds=config.diff_ids == diff_ids)
    reading.expect(f"the history tells of {told} layers, not {len(layers)}", holds=told == len(layers))
    for number in _repeated(diff_ids):
        reading.problems.append(f"layer {number} is the same as one below it")
    if platform is not None:
        reading.expect(f"it is for {config.platform_name}, not {platform}", holds=config.runs_on(platform))


def _check_base(
    reading: _Reading, manifest: ImageManifest, config: ImageConfig, base: ImageReport, *, foreign: bool
) -> None:
    count = len(base.layers)
    digests = [layer.digest for layer in manifest.layers[:count]]
    reading.expect(
        f"its lowest {count} layers are not those of its base {base.reference}",
        holds=foreign or digests == [layer.digest for layer in base.manifest.layers],
    )
    reading.expect(
        f"its lowest {count} diff_ids are not those of its base {base.reference}",
        holds=config.diff_ids[:count] == base.config.diff_ids,
    )


def _layer(reading: _Reading, number: int, descriptor: Descriptor, *, is_ours: bool) -> LayerReport:
    stream = _HashedLayer(reading.repository, descriptor)
    nodes: Tree = {}
    members: list[tarfile.TarInfo] = []
    for member in read_layer(stream.pieces(), OCI_LAYER):
        nodes[_path(member.info)] = node_of(member.info, member.content, number)
        members.append(member.info)
    problems = [*stream.problems()]
    if is_ours:
        problems += [*stream.own_problems(), *_layer_problems(members, nodes)]
    nodes.pop(".", None)  # the root itself, which Kaniko writes into each layer: every image has one
    reading.problems += (f"layer {number}: {problem}" for problem in problems)
    return LayerReport(descriptor=descriptor, diff_id=stream.diff_id, nodes=nodes)


@dataclass(slots=True)
class _HashedLayer:
    """A layer's bytes, hashed and counted while they pass."""

    repository: Repository
    descriptor: Descriptor
    digest: str = ""
    diff_id: str = ""
    size_bytes: int = 0
    head: bytes = b""

    def pieces(self) -> Iterator[bytes]:
        """Yield the uncompressed bytes; at the end `digest`, `diff_id` and `size_bytes` are known."""
        hashed = hashlib.sha256()
        for piece in decompress(self._chunks(), self.descriptor.media_type):
            hashed.update(piece)
            yield piece
        self.diff_id = f"sha256:{hashed.hexdigest()}"

    def _chunks(self) -> Iterator[bytes]:
        hashed = hashlib.sha256()
        with self.repository.open_blob(self.descriptor) as chunks:
            for chunk in chunks:
                hashed.update(chunk)
                self.size_bytes += len(chunk)
                self.head = (self.head + chunk[:_GZIP_HEADER_BYTES])[:_GZIP_HEADER_BYTES]
                yield chunk
        self.digest = f"sha256:{hashed.hexdigest()}"

    def problems(self) -> Iterator[str]:
        """Yield how the bytes differ from what the manifest says."""
        if self.digest != self.descriptor.digest:
            yield f"its digest is {self.digest}, not {self.descriptor.digest}"
        if self.size_bytes != self.descriptor.size:
            yield f"it has {self.size_bytes} bytes, not {self.descriptor.size}"

    def own_problems(self) -> Iterator[str]:
        """Yield how the compression is not ours. A gzip header can have a name and a time (RFC 1952, section 2.3)."""
        if self.descriptor.media_type not in {OCI_LAYER_GZIP, OCI_LAYER_ZSTD}:
            yield f"its media type is {self.descriptor.media_type}"
        if self.descriptor.media_type == OCI_LAYER_GZIP and any(self.head[3:8]):
            yield "its gzip header has a name or a time"


def _layer_problems(members: Sequence[tarfile.TarInfo], nodes: Tree) -> Iterator[str]:
    """Yield what makes a layer differ between machines, or what no layer of ours has."""
    if not members:
        yield "it is empty"
    paths = [(member.islnk(), _path(member)) for member in members]
    if paths != sorted(paths):
        yield "its entries are not sorted, hard links last"
    if len(nodes) != len(members):
        doubles = sorted({path for _, path in paths if [other for _, other in paths].count(path) > 1})
        yield f"it has paths twice: {', '.join(doubles)}"
    seen: set[str] = set()
    for member in members:
        yield from _member_problems(member, nodes[_path(member)], seen)
        seen.add(_path(member))


def _member_problems(member: tarfile.TarInfo, node: TreeNode, seen: Container[str]) -> Iterator[str]:
    path = _path(member)
    folder, _, name = path.rpartition("/")
    if (member.uid, member.gid, member.uname, member.gname) != (0, 0, "", ""):
        yield f"{path} belongs to {member.uid}:{member.gid} {member.uname}:{member.gname}"
    if member.mtime:
        yield f"{path} has the time {member.mtime}"
    if stat.S_IMODE(member.mode) not in _MODES.get(node.kind, ()):
        yield f"{path} is a {node.kind} of mode {member.mode:o}"
    if posixpath.normpath(member.name) != member.name or member.name.startswith(("/", "../")):
        yield f"{member.name} is not a normalised path below the root"
    if folder and folder not in seen:
        yield f"{path} comes before its folder"
    if name.startswith(".wh."):
        yield f"{path} is a whiteout"
    if node.kind == "hardlink" and node.target not in seen:
        yield f"{path} is linked to {node.target}, which does not come before it"


def _path(member: tarfile.TarInfo) -> str:
    return posixpath.normpath(member.name).lstrip("/")


def _repeated(values: Sequence[str]) -> list[int]:
    return [number for number, value in enumerate(values) if value in values[:number]]
