/* URLs, and what their transports say of them. No password is in what is shown. */
#include "fuzz.h"

#include <rpcrew/impl/transport.h>

#include <string.h>

/* One that is no word of a message, is long enough to be nowhere else by chance, and is nowhere else. */
static bool is_telling(const char *text, const char *password)
{
    bool odd = password && strlen(password) >= 6 && strpbrk(password, "!$*;~^");
    const char *first = odd ? strstr(text, password) : NULL;
    return first && !strstr(first + 1, password);
}

static size_t values_in(const char *text)
{
    size_t count = 0;
    for (; *text; text++)
        count += *text == '=';
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[5000];
    crew_url *url;
    crew_error why;
    if (size >= sizeof text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (crew_url_parse(text, &url, &why) != CREW_OK)
        return 0;
    for (size_t i = 0; i < crew_url_host_count(url); i++)
        REQUIRE(crew_url_host(url, i));
    const crew_transport *transport = crew_transport_find(crew_url_scheme(url));
    bool telling = is_telling(text, crew_url_password(url));
    for (int server = 0; transport && server < 2; server++) {
        crew_status status = crew_url_check(url, transport->options, NULL, &why);
        if (status == CREW_OK)
            status = transport->check(url, server, &why);
        REQUIRE(status == CREW_OK || !telling || !strstr(why.message, crew_url_password(url)));
    }
    REQUIRE(strlen(crew_url_text(url)) <= size + 3 * (1 + values_in(text))); /* each may be "***" instead */
    REQUIRE(!telling || !strstr(crew_url_text(url), crew_url_password(url)));
    crew_url_free(url);
    return 0;
}
