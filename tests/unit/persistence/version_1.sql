PRAGMA application_id = 1414743873;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE conversations (
  number INTEGER PRIMARY KEY,
  conversation_id TEXT NOT NULL UNIQUE,
  agent_id TEXT NOT NULL,
  owner TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  revision INTEGER NOT NULL,
  change INTEGER NOT NULL,
  message_count INTEGER NOT NULL,
  title TEXT,
  updated_at TEXT NOT NULL
);
INSERT INTO "conversations" VALUES(1,'plain','conversation-plain','null',1796096136965000,11,11,8,NULL,'2026-12-01T03:35:37.019940+00:00');
INSERT INTO "conversations" VALUES(2,'owned','conversation-owned','"alice"',1796096137023639,3,14,2,NULL,'2026-12-01T03:35:37.040102+00:00');
INSERT INTO "conversations" VALUES(3,'waiting','conversation-waiting','null',1796096137043518,4,18,2,NULL,'2026-12-01T03:35:37.067910+00:00');
INSERT INTO "conversations" VALUES(4,'held','conversation-held','null',1796096137075781,6,25,4,NULL,'2026-12-01T03:35:37.126420+00:00');
INSERT INTO "conversations" VALUES(5,'cut','conversation-cut','null',1796096137107877,5,29,1,NULL,'2026-12-01T03:35:37.243901+00:00');
CREATE TABLE message_ids (
  conversation INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  digest TEXT NOT NULL,
  PRIMARY KEY (conversation, message_id)
) WITHOUT ROWID;
INSERT INTO "message_ids" VALUES(1,'4e448863b60b0df9-1-7','7fc1e58aeaf4badc9c970b513b95ed9f1388bb1e1b2169900945ee2f7c3ce350');
INSERT INTO "message_ids" VALUES(1,'m1','45202014866d541b5fcfaad22b9e5f051c0e113c1b10ee54b8ce7ab70ed2c2a9');
INSERT INTO "message_ids" VALUES(1,'m2','4d808e97b7003f2b9d137ef849569c9841a0aef9ac2ea50b6b63c03d32961963');
INSERT INTO "message_ids" VALUES(2,'m1','d0394e4d98adfcbc6a04ba15e6affcc82fc202026a57d631399c0880ba69143e');
INSERT INTO "message_ids" VALUES(3,'p1','4c3a83df291948cb14f3034c4fc847b4606839774d33d22cd7d61fc4bf0a700b');
INSERT INTO "message_ids" VALUES(4,'f1','fea396aef8198326a58a106784bfeb9c821bc7c262c19bcd292b32ed727ee2c5');
INSERT INTO "message_ids" VALUES(4,'f2','b043b02e0208379191f985b6dee2688c38fe0a83449d3af4e7c26887a0d82202');
INSERT INTO "message_ids" VALUES(5,'h1','bfb24c01d0c8ef4f62743260506c775e1ccde39768345b23c44264db8d12a92c');
INSERT INTO "message_ids" VALUES(5,'h2','be2290dc1b5d7d2249ab3d618a6572299540b23e8ea76f91c0248fa849645cfe');
INSERT INTO "message_ids" VALUES(5,'h3','12715f81bb1a6fe99cad48b731f2fb318066668e2d77796530712fe8ef947dad');
CREATE TABLE messages (place INTEGER PRIMARY KEY, conversation INTEGER NOT NULL, body TEXT NOT NULL);
INSERT INTO "messages" VALUES(1,1,'{"v":1,"message_id":"m1","role":"user","parts":[{"type":"text","text":"hello"}],"turn_id":"4e448863b60b0df9-1-1","digest":"45202014866d541b5fcfaad22b9e5f051c0e113c1b10ee54b8ce7ab70ed2c2a9"}');
INSERT INTO "messages" VALUES(2,1,'{"v":1,"message_id":"4e448863b60b0df9-1-2","role":"assistant","parts":[{"type":"text","text":"re: hello"}],"stop_reason":"stop","turn_id":"4e448863b60b0df9-1-1","metadata":{"turn":{"status":"completed","rounds":1,"calls":0,"usage":{"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_write_tokens":0}}}}');
INSERT INTO "messages" VALUES(3,1,'{"v":1,"message_id":"m2","role":"user","parts":[{"type":"text","text":"please look"}],"turn_id":"4e448863b60b0df9-1-3","digest":"4d808e97b7003f2b9d137ef849569c9841a0aef9ac2ea50b6b63c03d32961963"}');
INSERT INTO "messages" VALUES(4,1,'{"v":1,"message_id":"4e448863b60b0df9-1-4","role":"assistant","parts":[{"type":"text","text":"I look"},{"type":"tool_call","call_id":"call-1","name":"look","arguments":{"what":"it"},"status":"pending"}],"stop_reason":"tool_calls","turn_id":"4e448863b60b0df9-1-3"}');
INSERT INTO "messages" VALUES(5,1,'{"v":1,"message_id":"4e448863b60b0df9-1-5","role":"tool","parts":[{"type":"tool_result","call_id":"call-1","name":"look","content":"saw it","status":"completed"}],"turn_id":"4e448863b60b0df9-1-3"}');
INSERT INTO "messages" VALUES(6,1,'{"v":1,"message_id":"4e448863b60b0df9-1-6","role":"assistant","parts":[{"type":"text","text":"done"}],"stop_reason":"stop","turn_id":"4e448863b60b0df9-1-3","metadata":{"turn":{"status":"completed","rounds":2,"calls":1,"usage":{"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_write_tokens":0}}}}');
INSERT INTO "messages" VALUES(7,1,'{"v":1,"message_id":"4e448863b60b0df9-1-7","role":"user","parts":[{"type":"text","text":"Ünïcode 🙂"}],"turn_id":"4e448863b60b0df9-1-8","digest":"7fc1e58aeaf4badc9c970b513b95ed9f1388bb1e1b2169900945ee2f7c3ce350"}');
INSERT INTO "messages" VALUES(8,1,'{"v":1,"message_id":"4e448863b60b0df9-1-9","role":"assistant","parts":[{"type":"text","text":"re: Ünïcode 🙂"}],"stop_reason":"stop","turn_id":"4e448863b60b0df9-1-8","metadata":{"turn":{"status":"completed","rounds":1,"calls":0,"usage":{"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_write_tokens":0}}}}');
INSERT INTO "messages" VALUES(9,2,'{"v":1,"message_id":"m1","role":"user","parts":[{"type":"text","text":"hi"}],"turn_id":"4e448863b60b0df9-2-1","digest":"d0394e4d98adfcbc6a04ba15e6affcc82fc202026a57d631399c0880ba69143e"}');
INSERT INTO "messages" VALUES(10,2,'{"v":1,"message_id":"4e448863b60b0df9-2-2","role":"assistant","parts":[{"type":"text","text":"re: hi"}],"stop_reason":"stop","turn_id":"4e448863b60b0df9-2-1","metadata":{"turn":{"status":"completed","rounds":1,"calls":0,"usage":{"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_write_tokens":0}}}}');
INSERT INTO "messages" VALUES(11,3,'{"v":1,"message_id":"p1","role":"user","parts":[{"type":"text","text":"pay"}],"turn_id":"4e448863b60b0df9-3-1","digest":"4c3a83df291948cb14f3034c4fc847b4606839774d33d22cd7d61fc4bf0a700b"}');
INSERT INTO "messages" VALUES(12,3,'{"v":1,"message_id":"4e448863b60b0df9-3-2","role":"assistant","parts":[{"type":"tool_call","call_id":"call-2","name":"pay","arguments":{"amount":1},"status":"pending"}],"stop_reason":"tool_calls","turn_id":"4e448863b60b0df9-3-1","metadata":{"gated":["call-2"]}}');
INSERT INTO "messages" VALUES(13,4,'{"v":1,"message_id":"f1","role":"user","parts":[{"type":"text","text":"fail"}],"turn_id":"4e448863b60b0df9-4-1","digest":"fea396aef8198326a58a106784bfeb9c821bc7c262c19bcd292b32ed727ee2c5"}');
INSERT INTO "messages" VALUES(14,4,'{"v":1,"message_id":"4e448863b60b0df9-4-2","role":"assistant","parts":[{"type":"text","text":"partial"}],"stop_reason":"stream_error","turn_id":"4e448863b60b0df9-4-1","metadata":{"turn":{"status":"failed","rounds":1,"calls":0,"usage":{"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_write_tokens":0},"error":{"kind":"provider","text":"the provider is ill","detail":["unknown"]}}}}');
INSERT INTO "messages" VALUES(15,4,'{"v":1,"message_id":"f2","role":"user","parts":[{"type":"text","text":"later"}],"turn_id":"4e448863b60b0df9-4-3","digest":"b043b02e0208379191f985b6dee2688c38fe0a83449d3af4e7c26887a0d82202"}');
INSERT INTO "messages" VALUES(16,4,'{"v":1,"message_id":"4e448863b60b0df9-4-4","role":"assistant","parts":[{"type":"text","text":"re: later"}],"stop_reason":"stop","turn_id":"4e448863b60b0df9-4-3","metadata":{"turn":{"status":"completed","rounds":1,"calls":0,"usage":{"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_write_tokens":0}}}}');
INSERT INTO "messages" VALUES(17,5,'{"v":1,"message_id":"h1","role":"user","parts":[{"type":"text","text":"hang"}],"turn_id":"4e448863b60b0df9-5-1","digest":"bfb24c01d0c8ef4f62743260506c775e1ccde39768345b23c44264db8d12a92c"}');
CREATE TABLE queue (
  place INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL,
  message_id TEXT NOT NULL,
  body TEXT NOT NULL,
  UNIQUE (conversation, message_id)
);
INSERT INTO "queue" VALUES(1,5,'h2','{"v":1,"message_id":"h2","role":"user","parts":[{"type":"text","text":"queued behind"}],"digest":"be2290dc1b5d7d2249ab3d618a6572299540b23e8ea76f91c0248fa849645cfe"}');
INSERT INTO "queue" VALUES(2,5,'h3','{"v":1,"message_id":"h3","role":"user","parts":[{"type":"text","text":"and this"}],"digest":"12715f81bb1a6fe99cad48b731f2fb318066668e2d77796530712fe8ef947dad"}');
CREATE TABLE state (conversation INTEGER NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, UNIQUE (conversation, name));
INSERT INTO "state" VALUES(1,'todos','[]');
INSERT INTO "state" VALUES(1,'metadata','{}');
INSERT INTO "state" VALUES(2,'todos','[]');
INSERT INTO "state" VALUES(2,'metadata','{}');
INSERT INTO "state" VALUES(3,'todos','[]');
INSERT INTO "state" VALUES(3,'metadata','{}');
INSERT INTO "state" VALUES(3,'interrupt','{"interrupt_id":"4e448863b60b0df9-3-3","turn_id":"4e448863b60b0df9-3-1","calls":[{"call_id":"call-2","name":"pay","status":"interrupted","opaque":null,"interrupt_id":"4e448863b60b0df9-3-3","kind":"approval","claimed_by":["Approvals"],"allowed":["approve","edit","reject"],"question":null,"text":"","path":[],"timeout":null,"tool_digest":"a03ddebb767d8b2d0fa1.2c45d572e8d486bc9598.9bd187e9194563a11d92.133ce2e7b011a67156c3.70db204a77e9b55523a8","demands":["24ca6b89ebfb5f054292d9fd3f3602a0"],"met":[],"asked_before":0,"arguments":{"amount":1}}],"kind":"approval","restorable":true,"decided":[],"expires_at":null,"since":"2026-12-01T03:35:37.067384+00:00"}');
INSERT INTO "state" VALUES(4,'todos','[]');
INSERT INTO "state" VALUES(4,'metadata','{}');
INSERT INTO "state" VALUES(5,'todos','[]');
INSERT INTO "state" VALUES(5,'metadata','{}');
INSERT INTO "state" VALUES(5,'draft','{"v":1,"message_id":"4e448863b60b0df9-5-2","role":"assistant","parts":[{"type":"text","text":"so far"}],"stop_reason":"crashed","turn_id":"4e448863b60b0df9-5-1"}');
CREATE TABLE transcript (
  place INTEGER PRIMARY KEY,
  conversation INTEGER NOT NULL,
  row_id TEXT NOT NULL,
  message_id TEXT NOT NULL,
  role TEXT NOT NULL,
  content_type TEXT NOT NULL,
  content TEXT NOT NULL,
  status TEXT NOT NULL,
  created_at TEXT NOT NULL,
  UNIQUE (conversation, row_id)
);
INSERT INTO "transcript" VALUES(1,1,'m:m1:0','m1','user','text','{"text":"hello"}','completed','2026-12-01T03:35:36.966580+00:00');
INSERT INTO "transcript" VALUES(2,1,'m:4e448863b60b0df9-1-2:0','4e448863b60b0df9-1-2','assistant','text','{"text":"re: hello","_row":{"turn_id":"4e448863b60b0df9-1-1"}}','completed','2026-12-01T03:35:36.979851+00:00');
INSERT INTO "transcript" VALUES(3,1,'m:m2:0','m2','user','text','{"text":"please look"}','completed','2026-12-01T03:35:36.983525+00:00');
INSERT INTO "transcript" VALUES(4,1,'m:4e448863b60b0df9-1-4:0','4e448863b60b0df9-1-4','assistant','text','{"text":"I look","_row":{"turn_id":"4e448863b60b0df9-1-3"}}','completed','2026-12-01T03:35:36.992183+00:00');
INSERT INTO "transcript" VALUES(5,1,'c:4e448863b60b0df9-1-3:call-1','4e448863b60b0df9-1-4','assistant','tool_call','{"call_id":"call-1","name":"look","arguments":{"what":"it"},"_row":{"turn_id":"4e448863b60b0df9-1-3"}}','completed','2026-12-01T03:35:36.995500+00:00');
INSERT INTO "transcript" VALUES(6,1,'m:4e448863b60b0df9-1-5:0','4e448863b60b0df9-1-5','tool','tool_result','{"tool_call_id":"call-1","name":"look","content":"saw it","is_error":false,"_row":{"turn_id":"4e448863b60b0df9-1-3"}}','completed','2026-12-01T03:35:36.995500+00:00');
INSERT INTO "transcript" VALUES(7,1,'m:4e448863b60b0df9-1-6:0','4e448863b60b0df9-1-6','assistant','text','{"text":"done","_row":{"turn_id":"4e448863b60b0df9-1-3"}}','completed','2026-12-01T03:35:37.000010+00:00');
INSERT INTO "transcript" VALUES(8,1,'m:4e448863b60b0df9-1-7:0','4e448863b60b0df9-1-7','user','text','{"text":"Ünïcode 🙂"}','completed','2026-12-01T03:35:37.007732+00:00');
INSERT INTO "transcript" VALUES(9,1,'m:4e448863b60b0df9-1-9:0','4e448863b60b0df9-1-9','assistant','text','{"text":"re: Ünïcode 🙂","_row":{"turn_id":"4e448863b60b0df9-1-8"}}','completed','2026-12-01T03:35:37.019725+00:00');
INSERT INTO "transcript" VALUES(10,2,'m:m1:0','m1','user','text','{"text":"hi"}','completed','2026-12-01T03:35:37.024691+00:00');
INSERT INTO "transcript" VALUES(11,2,'m:4e448863b60b0df9-2-2:0','4e448863b60b0df9-2-2','assistant','text','{"text":"re: hi","_row":{"turn_id":"4e448863b60b0df9-2-1"}}','completed','2026-12-01T03:35:37.039842+00:00');
INSERT INTO "transcript" VALUES(12,3,'m:p1:0','p1','user','text','{"text":"pay"}','completed','2026-12-01T03:35:37.044523+00:00');
INSERT INTO "transcript" VALUES(13,3,'c:4e448863b60b0df9-3-1:call-2','4e448863b60b0df9-3-2','assistant','tool_call','{"call_id":"call-2","name":"pay","arguments":{"amount":1},"_row":{"turn_id":"4e448863b60b0df9-3-1"}}','interrupted','2026-12-01T03:35:37.067624+00:00');
INSERT INTO "transcript" VALUES(14,4,'m:f1:0','f1','user','text','{"text":"fail"}','completed','2026-12-01T03:35:37.076887+00:00');
INSERT INTO "transcript" VALUES(15,4,'m:4e448863b60b0df9-4-2:0','4e448863b60b0df9-4-2','assistant','text','{"text":"partial","stop_reason":"stream_error","_row":{"turn_id":"4e448863b60b0df9-4-1"}}','completed','2026-12-01T03:35:37.087619+00:00');
INSERT INTO "transcript" VALUES(16,4,'m:4e448863b60b0df9-4-2:error','4e448863b60b0df9-4-2','system','error','{"kind":"provider","text":"The model could not answer: the provider is ill","_row":{"turn_id":"4e448863b60b0df9-4-1"}}','failed','2026-12-01T03:35:37.087619+00:00');
INSERT INTO "transcript" VALUES(17,4,'m:f2:0','f2','user','text','{"text":"later"}','completed','2026-12-01T03:35:37.099845+00:00');
INSERT INTO "transcript" VALUES(18,5,'m:h1:0','h1','user','text','{"text":"hang"}','completed','2026-12-01T03:35:37.116434+00:00');
INSERT INTO "transcript" VALUES(19,4,'m:4e448863b60b0df9-4-4:0','4e448863b60b0df9-4-4','assistant','text','{"text":"re: later","_row":{"turn_id":"4e448863b60b0df9-4-3"}}','completed','2026-12-01T03:35:37.117531+00:00');
INSERT INTO "transcript" VALUES(20,5,'m:h2:0','h2','user','text','{"text":"queued behind"}','completed','2026-12-01T03:35:37.227437+00:00');
INSERT INTO "transcript" VALUES(21,5,'m:h3:0','h3','user','text','{"text":"and this"}','completed','2026-12-01T03:35:37.243604+00:00');
CREATE INDEX conversations_by_change ON conversations (change);
CREATE INDEX conversations_by_owner ON conversations (owner, change);
CREATE INDEX messages_by_conversation ON messages (conversation);
CREATE INDEX transcript_by_conversation ON transcript (conversation);
CREATE INDEX state_waiting ON state (name) WHERE name = 'interrupt';
COMMIT;
