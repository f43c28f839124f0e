/* The golden files' requests, a file each, for the fuzzers to begin with: run as `seeds FOLDER FILE…`. */
#include "support/golden.h"

static const char *folder, *name;

static void write_one(void *context, const struct golden_case *one)
{
    (void)context;
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s-%u", folder, name, one->line);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(one->request.data, 1, one->request.size, file) != one->request.size) {
        perror(path);
        exit(1);
    }
    (void)fclose(file);
}

int main(int argc, char **argv)
{
    folder = argc > 1 ? argv[1] : ".";
    for (int i = 2; i < argc; i++) {
        const char *slash = strrchr(argv[i], '/');
        name = slash ? slash + 1 : argv[i];
        if (!golden_each(argv[i], write_one, NULL))
            return 1;
    }
    return 0;
}
