/* Runs each file of the folders named on the command line through the target. */
#include "fuzz.h"

#include <dirent.h>
#include <string.h>

static void replay(const char *path)
{
    crew_buffer bytes = { 0 };
    FILE *file = fopen(path, "rb");
    REQUIRE(file);
    for (size_t got = 1; got;) {
        char *place = crew_buffer_extend(&bytes, 4096);
        REQUIRE(place);
        got = fread(place, 1, 4096, file);
        bytes.size -= 4096 - got;
    }
    (void)fclose(file);
    (void)LLVMFuzzerTestOneInput((const uint8_t *)bytes.data, bytes.size);
    crew_buffer_fini(&bytes);
}

int main(int argc, char **argv)
{
    int count = 0;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        REQUIRE(folder);
        for (struct dirent *entry; (entry = readdir(folder));) {
            char path[4096];
            if (entry->d_name[0] == '.')
                continue;
            (void)snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            replay(path);
            count++;
        }
        (void)closedir(folder);
    }
    printf("%d inputs\n", count);
    return count ? 0 : 1;
}
