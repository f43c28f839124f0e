/* URLs, and what their transports say of them. No password is in what is shown. */
#include "fuzz.h"

#include <rpcrew/impl/transport.h>

#include <string.h>

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
    for (int server = 0; transport && server < 2; server++)
        if (crew_url_check(url, transport->options, NULL, &why) == CREW_OK)
            (void)!transport->check(url, server, &why);
    REQUIRE(strlen(crew_url_text(url)) <= size + 3);
    crew_url_free(url);
    return 0;
}
