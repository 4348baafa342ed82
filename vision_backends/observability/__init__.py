"""Reports to logs, people and monitoring: events, alerts, the webhook, OpenTelemetry."""
