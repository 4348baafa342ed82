"""Who is told what happens: events, alerts, the webhook, OpenTelemetry."""
