/* A libcuda in host memory, for the calls of cxredge.cuda: the real cuda-bindings load it where there is no driver.
 * Work in a stream is done at once; a stream that is captured keeps its copies for the graph. Calls outside of the
 * primary context fail, and stub_state tells what has not been given back. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef unsigned long long Address;
typedef void *Handle;

enum { INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_CONTEXT = 201, NOT_FOUND = 500 };
enum { MAJOR = 75, MINOR = 76, THREAD_LOCAL = 1, NON_BLOCKING = 1, MOST = 64 };
static const size_t TOTAL = 1ul << 30;
static const Handle PRIMARY = (Handle)0x1000;

typedef struct {
    void *to;
    const void *from;
    size_t count;
} Copy;

typedef struct {
    int capturing, copies;
    Copy copy[MOST];
} Stream;

static __thread Handle stack[MOST];
static __thread int depth;
static int retained;
static long live;
static double now;

#define NEED_CONTEXT \
    if (depth == 0 || stack[depth - 1] != PRIMARY || retained <= 0) return INVALID_CONTEXT

Result cuInit(unsigned flags) { return flags ? INVALID_VALUE : 0; }
Result cuDriverGetVersion(int *version) { *version = 13010; return 0; }
Result cuDeviceGetCount(int *count) { *count = 1; return 0; }
Result cuDeviceGet(int *device, int ordinal) { *device = 0; return ordinal ? 101 : 0; }
Result cuDeviceGetName(char *name, int length, int device) { strncpy(name, "Stub", length); return 0; }
Result cuDeviceTotalMem_v2(size_t *total, int device) { *total = TOTAL; return 0; }
Result cuDeviceGetAttribute(int *value, int which, int device) { *value = which == MAJOR ? 9 : 0; return 0; }
Result cuDevicePrimaryCtxRetain(Handle *context, int device) { retained++; *context = PRIMARY; return 0; }
Result cuDevicePrimaryCtxRelease_v2(int device) { retained--; return 0; }
Result cuCtxPushCurrent_v2(Handle context) { stack[depth++] = context; return 0; }
Result cuCtxPopCurrent_v2(Handle *context) {
    if (depth == 0) return INVALID_CONTEXT;
    Handle popped = stack[--depth];
    if (context) *context = popped;
    return 0;
}

static Result give(void **memory, size_t count) {
    if (count > TOTAL) return OUT_OF_MEMORY;
    *memory = calloc(1, count);
    live++;
    return 0;
}
static Result take(void *memory) { free(memory); live--; return 0; }

Result cuMemAlloc_v2(Address *address, size_t count) { NEED_CONTEXT; return give((void **)address, count); }
Result cuMemFree_v2(Address address) { NEED_CONTEXT; return take((void *)address); }
Result cuMemHostAlloc(void **memory, size_t count, unsigned flags) { NEED_CONTEXT; return give(memory, count); }
Result cuMemFreeHost(void *memory) { NEED_CONTEXT; return take(memory); }
Result cuMemGetInfo_v2(size_t *unused, size_t *total) { NEED_CONTEXT; *unused = *total = TOTAL; return 0; }

static Result copy(Stream *stream, Copy one) {
    if (stream->capturing) stream->copy[stream->copies++] = one;
    else memcpy(one.to, one.from, one.count);
    return 0;
}
Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t count, Handle stream) {
    NEED_CONTEXT;
    return copy(stream, (Copy){(void *)to, from, count});
}
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t count, Handle stream) {
    NEED_CONTEXT;
    return copy(stream, (Copy){to, (void *)from, count});
}

Result cuStreamCreate(Handle *stream, unsigned flags) {
    NEED_CONTEXT;
    return flags == NON_BLOCKING ? give(stream, sizeof(Stream)) : INVALID_VALUE;
}
Result cuStreamDestroy_v2(Handle stream) { NEED_CONTEXT; return take(stream); }
Result cuStreamSynchronize(Handle stream) { NEED_CONTEXT; return 0; }
Result cuEventCreate(Handle *event, unsigned flags) { NEED_CONTEXT; return give(event, sizeof(double)); }
Result cuEventDestroy_v2(Handle event) { NEED_CONTEXT; return take(event); }
Result cuEventRecord(Handle event, Handle stream) { NEED_CONTEXT; *(double *)event = now += 1; return 0; }
Result cuEventElapsedTime_v2(float *milliseconds, Handle start, Handle end) {
    NEED_CONTEXT;
    *milliseconds = (float)(*(double *)end - *(double *)start);
    return 0;
}
Result cuEventElapsedTime(float *milliseconds, Handle start, Handle end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

static Result duplicate(Handle *to, const Stream *from) {
    Result result = give(to, sizeof(Stream));
    memcpy(*to, from, sizeof(Stream));
    ((Stream *)*to)->capturing = 0;
    return result;
}
Result cuStreamBeginCapture_v2(Handle stream, int mode) {
    NEED_CONTEXT;
    ((Stream *)stream)->capturing = 1;
    ((Stream *)stream)->copies = 0;
    return mode == THREAD_LOCAL ? 0 : INVALID_VALUE;
}
Result cuStreamEndCapture(Handle stream, Handle *graph) {
    NEED_CONTEXT;
    Result result = duplicate(graph, stream);
    ((Stream *)stream)->capturing = 0;
    return result;
}
Result cuGraphInstantiateWithFlags(Handle *executable, Handle graph, Address flags) {
    NEED_CONTEXT;
    return duplicate(executable, graph);
}
Result cuGraphDestroy(Handle graph) { NEED_CONTEXT; return take(graph); }
Result cuGraphExecDestroy(Handle executable) { NEED_CONTEXT; return take(executable); }
Result cuGraphLaunch(Handle executable, Handle stream) {
    NEED_CONTEXT;
    const Stream *work = executable;
    for (int index = 0; index < work->copies; index++) copy(stream, work->copy[index]);
    return 0;
}

Result cuGetErrorString(int code, const char **text) {
    *text = code == OUT_OF_MEMORY ? "out of memory" : "another error";
    return 0;
}

/* What tests ask. */
void stub_state(long *objects, int *contexts, int *pushed) {
    *objects = live;
    *contexts = retained;
    *pushed = depth;
}

Result cuGetProcAddress_v2(const char *name, void **function, int version, Address flags, int *status) {
    static Handle self;
    char newer[128];
    if (self == NULL) {
        Dl_info info;
        dladdr((void *)cuInit, &info);
        self = dlopen(info.dli_fname, RTLD_NOW);
    }
    if (strcmp(name, "cuGraphInstantiate") == 0) name = "cuGraphInstantiateWithFlags";
    snprintf(newer, sizeof newer, "%s_v2", name);
    *function = dlsym(self, newer);
    if (*function == NULL) *function = dlsym(self, name);
    if (status) *status = *function == NULL;
    return *function == NULL ? NOT_FOUND : 0;
}
Result cuGetProcAddress(const char *name, void **function, int version, Address flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
