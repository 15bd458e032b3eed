include $(sort $(wildcard $(BR2_EXTERNAL_REPOT_PATH)/package/*/*.mk))
