// Yours to fill in. Keep the filled-in file out of version control.
#pragma once

#define WIFI_SSID "network"
#define WIFI_PASSWORD "password"
#define IOTFLOW_URL "https://iot.example.com"
#define IOTFLOW_API_KEY "iotd_..."
// The certificate authority of the service, PEM; needed for https.
#define IOTFLOW_CA ""
#define INTERVAL_MS 10000
