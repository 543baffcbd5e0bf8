// Calls one kernel of a compiled library where there is no TVM runtime at all: kernel LIBRARY SYMBOL ARGUMENT...
// An argument is a file: int32 rank, int64 extents, float32 numbers. The last is the result and is written back.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <tvm/ffi/c_api.h>

typedef int (*Kernel)(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result);

// the one function of the runtime that a kernel refers to; it is called where an argument has another shape
void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) fputs(parts[i] ? parts[i] : "", stderr);
  fputc('\n', stderr);
}

static void fail(const char* what) {
  fprintf(stderr, "cannot read %s\n", what);
  exit(2);
}

static DLTensor read_tensor(const char* path, size_t* count) {
  FILE* file = fopen(path, "rb");
  DLTensor tensor = {.device = {kDLCPU, 0}, .dtype = {kDLFloat, 32, 1}};
  if (!file || fread(&tensor.ndim, sizeof(int32_t), 1, file) != 1) fail(path);
  tensor.shape = calloc(tensor.ndim + 1, sizeof(int64_t));
  if (fread(tensor.shape, sizeof(int64_t), tensor.ndim, file) != (size_t)tensor.ndim) fail(path);
  *count = 1;
  for (int32_t i = 0; i < tensor.ndim; ++i) *count *= tensor.shape[i];
  // TVM's own allocator gives kernels 64 bytes of alignment, and generated code relies on it
  tensor.data = aligned_alloc(64, (*count * sizeof(float) + 63) / 64 * 64);
  if (fread(tensor.data, sizeof(float), *count, file) != *count) fail(path);
  fclose(file);
  return tensor;
}

int main(int argc, char** argv) {
  if (argc < 4) return 2;
  void* library = dlopen(argv[1], RTLD_NOW);
  Kernel kernel = library ? (Kernel)dlsym(library, argv[2]) : NULL;
  if (!kernel) fail(dlerror());
  int32_t arguments = argc - 3;
  DLTensor* tensors = calloc(arguments, sizeof(DLTensor));
  TVMFFIAny* packed = calloc(arguments, sizeof(TVMFFIAny));
  size_t count = 0;
  for (int32_t i = 0; i < arguments; ++i) {
    tensors[i] = read_tensor(argv[3 + i], &count);
    packed[i].type_index = kTVMFFIDLTensorPtr;
    packed[i].v_ptr = &tensors[i];
  }
  TVMFFIAny nothing = {0};
  if (kernel(NULL, packed, arguments, &nothing)) return 1;
  FILE* file = fopen(argv[argc - 1], "wb");
  if (!file) fail(argv[argc - 1]);
  fwrite(tensors[arguments - 1].data, sizeof(float), count, file);
  return fclose(file) ? 2 : 0;
}
