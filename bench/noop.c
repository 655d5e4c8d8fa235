/* A CNI plugin that makes nothing: what pods take without a network. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
    const char *verb = getenv("CNI_COMMAND");
    if (verb && !strcmp(verb, "VERSION"))
        puts("{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}");
    if (verb && !strcmp(verb, "ADD"))
        puts("{\"cniVersion\":\"1.0.0\",\"interfaces\":[{\"name\":\"eth0\",\"sandbox\":\"/\"}],"
             "\"ips\":[{\"address\":\"192.0.2.1/32\",\"interface\":0}]}");
    return 0;
}
