/* A whole dispatcher, on any bytes; and if they are JSON params, the same call in both protocols. */
#include "twins.h"

static crew_bytes handle(crew_string request, const char *content_type)
{
    crew_bytes answer;
    const crew_handle_options options = { .content_type = content_type };
    REQUIRE(crew_handle(twins_dispatcher(), request, &options, &answer) == CREW_OK);
    return answer;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    crew_bytes answer;
    if (crew_handle(twins_dispatcher(), fuzz_string(data, size), NULL, &answer) == CREW_OK)
        crew_bytes_free(&answer);
    twins_check(fuzz_string(data, size), handle);
    return 0;
}
