// Command cri-client makes one call of a container runtime's CRI.
//
//	cri-client [-timeout 60s] SOCKET METHOD < request.json > response.json
//
// METHOD is a name of runtime.v1.RuntimeService, such as RunPodSandbox; request and response
// are its messages with the field names of the .proto file.  A call that the runtime refuses
// prints the gRPC status to standard error and exits 1.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// method holds one empty request and one empty response to decode into.
type method struct{ request, response any }

var methods = map[string]method{
	"ListPodSandbox":   {&cri.ListPodSandboxRequest{}, &cri.ListPodSandboxResponse{}},
	"PodSandboxStatus": {&cri.PodSandboxStatusRequest{}, &cri.PodSandboxStatusResponse{}},
	"RemovePodSandbox": {&cri.RemovePodSandboxRequest{}, &cri.RemovePodSandboxResponse{}},
	"RunPodSandbox":    {&cri.RunPodSandboxRequest{}, &cri.RunPodSandboxResponse{}},
	"Status":           {&cri.StatusRequest{}, &cri.StatusResponse{}},
	"StopPodSandbox":   {&cri.StopPodSandboxRequest{}, &cri.StopPodSandboxResponse{}},
	"Version":          {&cri.VersionRequest{}, &cri.VersionResponse{}},
}

func main() {
	timeout := flag.Duration("timeout", time.Minute, "give up after this long")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: cri-client [-timeout 60s] SOCKET METHOD < request.json")
		os.Exit(2)
	}
	if err := call(flag.Arg(0), flag.Arg(1), *timeout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// call sends the request on standard input and prints the response.
func call(socket, name string, timeout time.Duration) error {
	m, known := methods[name]
	if !known {
		return fmt.Errorf("unknown method %q: one of %s", name, strings.Join(names(), " "))
	}
	if err := json.NewDecoder(os.Stdin).Decode(m.request); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("request of %s: %w", name, err)
	}
	connection, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	path := "/runtime.v1.RuntimeService/" + name
	if err := connection.Invoke(ctx, path, m.request, m.response); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(m.response)
}

func names() []string {
	sorted := make([]string, 0, len(methods))
	for name := range methods {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	return sorted
}
