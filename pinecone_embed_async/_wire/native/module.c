/* The module `pinecone_embed_async._wire._native`: `rows.h` for Python. `_native.pyi` says what it has. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>

#include "rows.h"

/* So few bytes are read with the lock: taking it back may mean waiting for another thread's turn to end. */
enum { SHORT = 16384 };

/* Most bytes that are read once a reader is stopped. */
enum { STEP = 262144 };

typedef struct {
    PyObject_HEAD
    rows_t rows;
    /* The matrix, which lives as long as it may be written to. */
    Py_buffer matrix;
    /* Set while a thread is in a method: `read` runs without the interpreter's lock. */
    bool is_busy;
    /* Set by another thread to end a `read`. */
    bool is_stopped;
} reader_t;

static bool enter(reader_t *self) {
    if (!__atomic_test_and_set(&self->is_busy, __ATOMIC_ACQUIRE))
        return true;
    PyErr_SetString(PyExc_RuntimeError, "a RowReader must be used by one thread at a time, another one is using it");
    return false;
}

static void leave(reader_t *self) {
    __atomic_clear(&self->is_busy, __ATOMIC_RELEASE);
}

static PyObject *bytes_of(const uint8_t *bytes, size_t length) {
    return PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)length);
}

static PyObject *reader_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"count", "longest", "portable", NULL};
    Py_ssize_t count, longest;
    int is_portable = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "nn|$p:RowReader", names, &count, &longest, &is_portable))
        return NULL;
    if (count < 1 || longest < 1 || longest > INT32_MAX) {
        PyErr_Format(PyExc_ValueError, "count and longest must be at least 1, longest at most %d, got %zd and %zd", INT32_MAX, count,
                     longest);
        return NULL;
    }
    reader_t *self = (reader_t *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    /* Everything else is zero. */
    self->rows.count = (size_t)count;
    self->rows.longest = (size_t)longest;
    self->rows.is_portable = is_portable || !rows_has_fast_path();
    self->rows.ends = PyMem_Calloc((size_t)count, sizeof *self->rows.ends);
    if (self->rows.ends == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static int reader_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((reader_t *)object)->matrix.obj);
    return 0;
}

static int reader_clear(PyObject *object) {
    reader_t *const self = (reader_t *)object;
    self->rows.matrix = NULL;
    PyBuffer_Release(&self->matrix);
    return 0;
}

static void reader_dealloc(PyObject *object) {
    reader_t *const self = (reader_t *)object;
    PyTypeObject *const type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    reader_clear(object);
    PyMem_Free(self->rows.ends);
    free(self->rows.beside.bytes);
    free(self->rows.kept.bytes);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

/* Make room for `missing` more bytes, and as many again as there are, so that what is copied stays linear. It needs no lock. */
static bool grow(buffer_t *buffer, size_t missing) {
    const size_t capacity = buffer->capacity + missing + (buffer->capacity < 1024 ? 1024 : buffer->capacity / 2);
    uint8_t *const bytes = realloc(buffer->bytes, capacity);
    if (bytes == NULL)
        return false;
    buffer->bytes = bytes;
    buffer->capacity = capacity;
    return true;
}

/* Where a `read` is: the piece, and the position in it. */
typedef struct {
    size_t piece, position;
} place_t;

/* Read pieces until their end, or until `most` bytes are read; false without memory. */
static bool read_pieces(reader_t *self, const text_t *pieces, size_t count, size_t most, place_t *place, rows_outcome_t *outcome) {
    rows_t *const rows = &self->rows;
    do {
        const text_t text = pieces[place->piece];
        const size_t start = place->position, stop = start + (most < STEP ? most : STEP);
        size_t missing;
        *outcome = rows_read(rows, text, &place->position, stop, &missing);
        while (*outcome == ROWS_BESIDE_FULL || *outcome == ROWS_KEPT_FULL) {
            if (!grow(*outcome == ROWS_KEPT_FULL ? &rows->kept : &rows->beside, missing))
                return false;
            *outcome = rows_read(rows, text, &place->position, stop, &missing);
        }
        const size_t length = place->position - start;
        most -= length < most ? length : most;
        if (*outcome == ROWS_READ && place->position == (size_t)(text.end - text.begin))
            *place = (place_t){place->piece + 1, 0};
    } while (*outcome == ROWS_READ && place->piece < count && most > 0 && !__atomic_load_n(&self->is_stopped, __ATOMIC_RELAXED));
    return true;
}

static PyObject *reader_read(PyObject *object, PyObject *arguments) {
    reader_t *const self = (reader_t *)object;
    PyObject *pieces;
    Py_ssize_t position, most;
    /* A tuple of `bytes` alone: nobody can change them meanwhile, and the arguments keep them alive. */
    if (!PyArg_ParseTuple(arguments, "O!nn:read", &PyTuple_Type, &pieces, &position, &most))
        return NULL;
    const Py_ssize_t count = PyTuple_Size(pieces);
    Py_ssize_t total = 0;
    text_t *const texts = PyMem_Calloc((size_t)count + 1, sizeof *texts);
    if (texts == NULL)
        return PyErr_NoMemory();
    PyObject *result = NULL;
    for (Py_ssize_t index = 0; index < count; index++) {
        char *bytes;
        Py_ssize_t length;
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(pieces, index), &bytes, &length) < 0)
            goto end;
        texts[index] = (text_t){(const uint8_t *)bytes, (const uint8_t *)bytes + length};
        total += length;
    }
    if (count == 0 || position < 0 || position > texts[0].end - texts[0].begin || most < 0) {
        PyErr_Format(PyExc_ValueError, "position must be within the first of the pieces and most at least 0, got %zd and %zd", position,
                     most);
        goto end;
    }
    if (!enter(self))
        goto end;
    place_t place = {0, (size_t)position};
    rows_outcome_t outcome;
    PyThreadState *const state = total - position > SHORT && most > SHORT ? PyEval_SaveThread() : NULL;
    const bool has_memory = read_pieces(self, texts, (size_t)count, (size_t)most, &place, &outcome);
    if (state)
        PyEval_RestoreThread(state);
    leave(self);
    result = has_memory ? Py_BuildValue("inn", (int)outcome, (Py_ssize_t)place.piece, (Py_ssize_t)place.position) : PyErr_NoMemory();
end:
    PyMem_Free(texts);
    return result;
}

static PyObject *reader_stop(PyObject *object, PyObject *Py_UNUSED(none)) {
    __atomic_store_n(&((reader_t *)object)->is_stopped, true, __ATOMIC_RELAXED);
    return Py_NewRef(Py_None);
}

static PyObject *reader_attach(PyObject *object, PyObject *matrix) {
    reader_t *const self = (reader_t *)object;
    if (!enter(self))
        return NULL;
    Py_buffer view;
    PyObject *result = NULL;
    if (self->matrix.obj)
        PyErr_SetString(PyExc_ValueError, "a RowReader must have one matrix, it has it already");
    else if (PyObject_GetBuffer(matrix, &view, PyBUF_CONTIG | PyBUF_FORMAT) == 0) {
        const bool is_right = view.ndim == 2 && view.format && strcmp(view.format, "f") == 0 && view.itemsize == 4 &&
                              (uintptr_t)view.buf % _Alignof(float) == 0 && (size_t)view.shape[0] == self->rows.count &&
                              view.shape[1] > 0;
        if (is_right) {
            self->matrix = view;
            self->rows.matrix = view.buf;
            self->rows.dimension = (size_t)view.shape[1];
            result = Py_NewRef(Py_None);
        } else {
            PyErr_Format(PyExc_ValueError, "the matrix must be float32 with %zu rows and at least one column", self->rows.count);
            PyBuffer_Release(&view);
        }
    }
    leave(self);
    return result;
}

static PyObject *reader_accept(PyObject *object, PyObject *Py_UNUSED(none)) {
    reader_t *const self = (reader_t *)object;
    if (!enter(self))
        return NULL;
    PyObject *result = NULL;
    if (!self->rows.is_kept_whole)
        PyErr_SetString(PyExc_ValueError, "there must be a row to accept, there is none");
    else if (self->rows.beside.length < self->rows.beside.capacity || grow(&self->rows.beside, 1)) {
        rows_accept_kept(&self->rows);
        result = Py_NewRef(Py_None);
    } else
        PyErr_NoMemory();
    leave(self);
    return result;
}

static size_t last_end(const rows_t *rows) {
    return rows->row ? rows->ends[rows->row - 1] : 0;
}

static PyObject *get_row(PyObject *object, void *Py_UNUSED(closure)) {
    reader_t *const self = (reader_t *)object;
    if (!enter(self))
        return NULL;
    PyObject *const row = PyLong_FromSize_t(self->rows.row);
    leave(self);
    return row;
}

static PyObject *get_count(PyObject *object, void *Py_UNUSED(closure)) {
    return PyLong_FromSize_t(((reader_t *)object)->rows.count);
}

static PyObject *get_is_portable(PyObject *object, void *Py_UNUSED(closure)) {
    return PyBool_FromLong(((reader_t *)object)->rows.is_portable);
}

static PyObject *get_gaps(PyObject *object, void *Py_UNUSED(closure)) {
    reader_t *const self = (reader_t *)object;
    if (!enter(self))
        return NULL;
    const rows_t *const rows = &self->rows;
    PyObject *gaps = PyList_New((Py_ssize_t)rows->row);
    size_t start = 0;
    for (size_t row = 0; gaps && row < rows->row; start = rows->ends[row++]) {
        PyObject *const gap = bytes_of(rows->beside.bytes + start, rows->ends[row] - start);
        if (gap == NULL || PyList_SetItem(gaps, (Py_ssize_t)row, gap) < 0)
            Py_CLEAR(gaps);
    }
    leave(self);
    return gaps;
}

static PyObject *get_rest(PyObject *object, void *Py_UNUSED(closure)) {
    reader_t *const self = (reader_t *)object;
    if (!enter(self))
        return NULL;
    const size_t start = last_end(&self->rows), end = self->rows.beside.length;
    PyObject *const rest = bytes_of(end ? self->rows.beside.bytes + start : NULL, end - start);
    leave(self);
    return rest;
}

static PyObject *get_rest_length(PyObject *object, void *Py_UNUSED(closure)) {
    reader_t *const self = (reader_t *)object;
    if (!enter(self))
        return NULL;
    PyObject *const length = PyLong_FromSize_t(self->rows.beside.length - last_end(&self->rows));
    leave(self);
    return length;
}

static PyObject *get_kept(PyObject *object, void *Py_UNUSED(closure)) {
    reader_t *const self = (reader_t *)object;
    if (!enter(self))
        return NULL;
    const buffer_t *const kept = &self->rows.kept;
    PyObject *const row = kept->length ? bytes_of(kept->bytes + BEFORE, kept->length - BEFORE) : bytes_of(NULL, 0);
    leave(self);
    return row;
}

static PyObject *get_kept_numbers(PyObject *object, void *Py_UNUSED(closure)) {
    reader_t *const self = (reader_t *)object;
    if (!enter(self))
        return NULL;
    const buffer_t *const kept = &self->rows.kept;
    size_t commas = 0;
    for (size_t start = BEFORE; start < kept->length; start += UINT8_MAX) {
        /* A byte as a counter, which cannot overflow here: the compiler then counts many at a time. */
        const size_t stop = kept->length - start < UINT8_MAX ? kept->length : start + UINT8_MAX;
        uint8_t some = 0;
        for (size_t index = start; index < stop; index++)
            some += kept->bytes[index] == ',';
        commas += some;
    }
    PyObject *const numbers = PyLong_FromSize_t(commas + 1);
    leave(self);
    return numbers;
}

static PyMethodDef reader_methods[] = {
    {"read", reader_read, METH_VARARGS, NULL},
    {"stop", reader_stop, METH_NOARGS, NULL},
    {"attach", reader_attach, METH_O, NULL},
    {"accept", reader_accept, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef reader_attributes[] = {
    {"count", get_count, NULL, NULL, NULL},
    {"row", get_row, NULL, NULL, NULL},
    {"is_portable", get_is_portable, NULL, NULL, NULL},
    {"gaps", get_gaps, NULL, NULL, NULL},
    {"rest", get_rest, NULL, NULL, NULL},
    {"rest_length", get_rest_length, NULL, NULL, NULL},
    {"kept", get_kept, NULL, NULL, NULL},
    {"kept_numbers", get_kept_numbers, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot reader_slots[] = {
    {Py_tp_doc, "Cuts an answer into its rows, which it writes to their places, and the bytes between them."},
    {Py_tp_new, reader_new},
    {Py_tp_traverse, reader_traverse},
    {Py_tp_clear, reader_clear},
    {Py_tp_dealloc, reader_dealloc},
    {Py_tp_methods, reader_methods},
    {Py_tp_getset, reader_attributes},
    {0, NULL},
};

static PyType_Spec reader_spec = {
    .name = "pinecone_embed_async._wire._native.RowReader",
    .basicsize = sizeof(reader_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = reader_slots,
};

static int execute(PyObject *module) {
    PyObject *const type = PyType_FromModuleAndSpec(module, &reader_spec, NULL);
    const int failed = type == NULL || PyModule_AddType(module, (PyTypeObject *)type) < 0;
    Py_XDECREF(type);
    if (failed || PyModule_AddIntConstant(module, "READ", ROWS_READ) < 0 ||
        PyModule_AddIntConstant(module, "ODD", ROWS_ODD) < 0 || PyModule_AddIntConstant(module, "TOO_LONG", ROWS_TOO_LONG) < 0)
        return -1;
    return 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, execute},
#if defined(Py_mod_multiple_interpreters)
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if defined(Py_mod_gil)
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Decodes the rows of dense answers without the interpreter's lock.",
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__native(void) {
    return PyModuleDef_Init(&definition);
}
