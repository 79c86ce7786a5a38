/* Segments a radiograph: segment MODEL.onnx IMAGE.pgm MASK.pgm

   MODEL.onnx is made by 'cxredge export --with-processing'. IMAGE.pgm is binary PGM (P5) of 8 or 16 bits, of which
   the largest value is shown white; MASK.pgm gets 255 inside the lungs and 0 elsewhere, not cleaned. */

#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>

static const OrtApi *ort;

static void fail(const char *reason) {
  fprintf(stderr, "segment: %s\n", reason);
  exit(1);
}

static void check(OrtStatus *status) {
  if (status) fail(ort->GetErrorMessage(status));
}

static float *read_image(const char *path, int64_t shape[2]) {
  int width, height, white;
  FILE *file = fopen(path, "rb");
  if (!file || fscanf(file, "P5 %d %d %d", &width, &height, &white) != 3 || fgetc(file) == EOF) fail("no binary PGM");
  if (width < 32 || height < 32 || width > 20000 || height > 20000 || white < 1 || white > 65535) fail("wrong size");
  size_t count = (size_t)width * height;
  float *image = malloc(count * sizeof(float));
  if (!image) fail("no memory");
  for (size_t i = 0; i < count; i++) {
    int high = white > 255 ? fgetc(file) : 0, low = fgetc(file);
    if (high == EOF || low == EOF) fail("the image is cut short");
    image[i] = (float)(high * 256 + low); /* for MONOCHROME1, the negative of it */
  }
  fclose(file);
  shape[0] = height, shape[1] = width;
  return image;
}

int main(int count, char **arguments) {
  if (count != 4) fail("usage: segment MODEL.onnx IMAGE.pgm MASK.pgm");
  ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (!ort) fail("this ONNX Runtime is older than its header");
  OrtEnv *environment;
  OrtSessionOptions *options;
  OrtSession *session;
  OrtMemoryInfo *memory;
  check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "segment", &environment));
  check(ort->CreateSessionOptions(&options));
  check(ort->CreateSession(environment, arguments[1], options, &session));
  check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));

  int64_t shape[2];
  float *image = read_image(arguments[2], shape);
  size_t pixels = (size_t)(shape[0] * shape[1]);
  const char *inputs[] = {"image"}, *outputs[] = {"mask"};
  OrtValue *input = NULL, *output = NULL;
  check(ort->CreateTensorWithDataAsOrtValue(memory, image, pixels * sizeof(float), shape, 2,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input));
  check(ort->Run(session, NULL, inputs, (const OrtValue *const *)&input, 1, outputs, 1, &output));
  unsigned char *mask;
  check(ort->GetTensorMutableData(output, (void **)&mask));

  FILE *file = fopen(arguments[3], "wb");
  if (!file) fail("the mask cannot be written");
  fprintf(file, "P5 %d %d 255\n", (int)shape[1], (int)shape[0]);
  for (size_t i = 0; i < pixels; i++) fputc(mask[i] ? 255 : 0, file);
  return fclose(file) ? 1 : 0; /* the system frees the rest */
}
