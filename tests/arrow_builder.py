"""Arrow data made by hand, by ctypes: any layout, sound or not, and a count of what was released."""

import collections
import ctypes
import errno


class Schema(ctypes.Structure):
    pass


class Array(ctypes.Structure):
    pass


class Stream(ctypes.Structure):
    pass


RELEASE_SCHEMA = ctypes.CFUNCTYPE(None, ctypes.POINTER(Schema))
RELEASE_ARRAY = ctypes.CFUNCTYPE(None, ctypes.POINTER(Array))
RELEASE_STREAM = ctypes.CFUNCTYPE(None, ctypes.POINTER(Stream))
GET_SCHEMA = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Schema))
GET_NEXT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Stream), ctypes.POINTER(Array))
GET_LAST_ERROR = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Stream))

Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_char_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(Schema))),
    ("dictionary", ctypes.POINTER(Schema)),
    ("release", RELEASE_SCHEMA),
    ("private_data", ctypes.c_void_p),
]
Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(Array))),
    ("dictionary", ctypes.POINTER(Array)),
    ("release", RELEASE_ARRAY),
    ("private_data", ctypes.c_void_p),
]
Stream._fields_ = [
    ("get_schema", GET_SCHEMA),
    ("get_next", GET_NEXT),
    ("get_last_error", GET_LAST_ERROR),
    ("release", RELEASE_STREAM),
    ("private_data", ctypes.c_void_p),
]

new_capsule = ctypes.pythonapi.PyCapsule_New
new_capsule.restype = ctypes.py_object
new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class Type:
    """format and children may be None: NULL."""

    def __init__(self, format, name="", children=(), dictionary=None):
        self.format = None if format is None else format.encode()
        self.name = None if name is None else name.encode()
        self.children = children
        self.dictionary = dictionary


class Values:
    """An array. buffers: bytes, None, or an address."""

    def __init__(self, length, buffers=(), *, null_count=0, offset=0, children=(), dictionary=None):
        self.length = length
        self.buffers = buffers
        self.null_count = null_count
        self.offset = offset
        self.children = children
        self.dictionary = dictionary


class ArrowBuilder:
    """Exports what it was given, as a stream or, with export="array", as its first array.

    An array that is a callable is called for when its turn comes, and what it raises fails the stream.
    `released` counts each structure by its number, with the kind of it; check() that all were released once.
    """

    def __init__(self, type, arrays, export="stream"):
        self.type = type
        self.arrays = iter(arrays)
        self.exported = []  # kinds
        self.released = collections.Counter()
        self.moved = []  # out of their capsules, by the consumer
        self.kept = []
        self.error = b""
        # What a call that fails leaves behind is not the consumer's.
        self.stray_schema = RELEASE_SCHEMA(lambda _: self.released.update(["stray"]))
        self.stray_array = RELEASE_ARRAY(lambda _: self.released.update(["stray"]))
        if export == "stream":
            self.__arrow_c_stream__ = self.stream_capsule
        else:
            self.__arrow_c_array__ = self.array_capsules

    def check(self):
        assert self.exported
        assert not any(struct.release for struct in self.moved)
        assert self.released == collections.Counter(range(len(self.exported))), (self.exported, self.released)

    def export(self, struct, kind, release):
        """Gives struct a release callback that counts, and does so for its children as theirs would be."""
        number = len(self.exported)
        self.exported.append(kind)
        struct.private_data = number or None

        def released(pointer):
            given = pointer.contents
            assert (given.private_data or 0) == number
            self.released[number] += 1
            if kind != "stream":
                for i in range(given.n_children):
                    if given.children[i] and given.children[i].contents.release:
                        given.children[i].contents.release(given.children[i])
                if given.dictionary:
                    given.dictionary.contents.release(given.dictionary)
            given.release = release()

        struct.release = release(released)
        self.kept += [struct, struct.release]

    def pointers(self, structs, type):
        pointers = [None if struct is None else ctypes.pointer(struct) for struct in structs]
        found = (ctypes.POINTER(type) * max(len(structs), 1))(*pointers)
        self.kept.append(found)
        return found

    def schema(self, type):
        nullable = 2
        struct = Schema(type.format, type.name, None, nullable, len(type.children))
        struct.children = self.pointers([child and self.schema(child) for child in type.children], Schema)
        if type.dictionary is not None:
            struct.dictionary = ctypes.pointer(self.schema(type.dictionary))
        self.export(struct, "schema", RELEASE_SCHEMA)
        return struct

    def array(self, values):
        struct = Array(values.length, values.null_count, values.offset, len(values.buffers), len(values.children))
        buffers = (ctypes.c_void_p * max(len(values.buffers), 1))()
        for i, given in enumerate(values.buffers):
            if isinstance(given, bytes):
                held = ctypes.create_string_buffer(given, len(given))
                self.kept.append(held)
                given = ctypes.addressof(held)
            buffers[i] = given
        self.kept.append(buffers)
        struct.buffers = buffers
        struct.children = self.pointers([self.array(child) for child in values.children], Array)
        if values.dictionary is not None:
            struct.dictionary = ctypes.pointer(self.array(values.dictionary))
        self.export(struct, "array", RELEASE_ARRAY)
        return struct

    def stream(self):
        def get_schema(_, out):
            if isinstance(self.type, OSError):
                out[0].release = self.stray_schema
                return self.fail(self.type)
            out[0] = self.schema(self.type)
            return 0

        def get_next(_, out):
            try:
                values = next(self.arrays, None)
                if callable(values):
                    values = values()
            except OSError as error:
                out[0].release = self.stray_array
                return self.fail(error)
            if values is None:
                out[0] = Array()
                return 0
            out[0] = self.array(values)
            return 0

        def get_last_error(_):
            return ctypes.cast(ctypes.c_char_p(self.error), ctypes.c_void_p).value if self.error else None

        struct = Stream(GET_SCHEMA(get_schema), GET_NEXT(get_next), GET_LAST_ERROR(get_last_error))
        self.kept += [struct.get_schema, struct.get_next, struct.get_last_error]
        self.export(struct, "stream", RELEASE_STREAM)
        return struct

    def fail(self, error):
        self.error = str(error.strerror or "").encode()
        return error.errno or errno.EIO

    def capsule(self, struct, name):
        """Without a destructor: that would be Python code, run while an exception is on its way."""
        self.moved.append(struct)
        return new_capsule(ctypes.addressof(struct), name, None)

    def stream_capsule(self, requested_schema=None):
        assert requested_schema is None
        return self.capsule(self.stream(), b"arrow_array_stream")

    def array_capsules(self, requested_schema=None):
        assert requested_schema is None
        return (
            self.capsule(self.schema(self.type), b"arrow_schema"),
            self.capsule(self.array(next(self.arrays)), b"arrow_array"),
        )
