#pragma once
#include "Arduino.h"
class WiFiClient {};
enum { WL_CONNECTED = 3 };
enum wifi_mode_t { WIFI_STA = 1 };
struct WiFiShim {
  bool mode(wifi_mode_t mode);
  bool setAutoReconnect(bool on);
  int begin(const char* ssid, const char* password);
  int status();
};
extern WiFiShim WiFi;
