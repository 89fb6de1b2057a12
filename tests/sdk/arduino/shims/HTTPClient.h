#pragma once
#include "WiFi.h"
class HTTPClient {
 public:
  bool begin(WiFiClient& client, String url);
  void setTimeout(uint16_t ms);
  void setConnectTimeout(int32_t ms);
  void collectHeaders(const char* names[], const size_t count);
  void addHeader(const String& name, const String& value);
  int sendRequest(const char* method, String body);
  bool hasHeader(const char* name);
  String header(const char* name);
  String getString();
  void end();
};
