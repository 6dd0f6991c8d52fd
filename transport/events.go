package transport

// eventMessages is the gateway's JSON as server-sent events, for who asks for
// text/event-stream: a stream's messages, one an event.
type eventMessages struct{ *jsonMessages }

const eventStream = "text/event-stream"

// ContentType implements runtime.Marshaler.
func (eventMessages) ContentType(any) string { return eventStream }

// Delimiter implements runtime.Delimited.
func (eventMessages) Delimiter() []byte { return []byte("\n\n") }

// Marshal implements runtime.Marshaler. JSON has no line ends of its own.
func (e eventMessages) Marshal(v any) ([]byte, error) {
	body, err := e.jsonMessages.Marshal(v)
	return append([]byte("data: "), body...), err
}
