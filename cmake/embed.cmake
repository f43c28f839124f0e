# A file as the text of a C function: cmake -DINPUT=page.html -DOUTPUT=page.c -P embed.cmake
file(READ ${INPUT} hex HEX)
string(REGEX REPLACE "(..)" "0x\\1," bytes "${hex}")
string(REGEX REPLACE "(................................................................................)" "\\1\n" bytes "${bytes}")
file(WRITE ${OUTPUT} "#include <rpcrew/page.h>

static const unsigned char page[] = {
${bytes}0
};

crew_string crew_page(void)
{
    crew_string text = { (const char *)page, sizeof page - 1 };
    return text;
}
")
